"""CoLT5-attention: a feed-forward of which only some tokens take the heavy branch, the nearest package to Mixture-of-Depths."""

from ._stack import Ready, stacked


def feed_forward() -> Ready:
    """Two layers; 4 of 16 tokens of a sequence take the heavy branch."""
    from colt5_attention import ConditionalRoutedFeedForward

    return stacked(lambda: ConditionalRoutedFeedForward(16, num_heavy_tokens=4, light_ff_mult=0.5, heavy_ff_mult=2))


READY = {"feed_forward": lambda _, __: feed_forward()}
