"""st-moe-pytorch: its mixture layer in a small language model."""

from ._stack import Ready, stacked


def layer() -> Ready:
    """Two layers of four experts; the second choice is made by chance, in evaluation too."""
    from st_moe_pytorch import MoE

    return stacked(lambda: MoE(16, num_experts=4, capacity_factor_eval=1.0))


READY = {"layer": lambda _, __: layer()}
