"""Which versions of Transformers say what the contracts read."""

from importlib.metadata import version

from torch import nn

from ..errors import ModelError

OLDEST, BELOW = (5, 18), (6, 0)


def check_transformers(model: nn.Module) -> None:
    """ModelError if `model` is code of a Transformers whose routers are not known to mean what is stored.

    In 5.0 to about 5.4 nine families returned probabilities as `router_logits` (huggingface/transformers #45120, #46818); from
    5.18 on all families are proved, before it Switch among others is not (reports/LOG.md).
    """
    if any(type(m).__module__.startswith("transformers.") for m in model.modules()):
        check_version(version("transformers"))


def check_version(installed: str) -> None:
    """ModelError unless `installed` is a supported version, e.g. '5.23.0'."""
    found = tuple(int(part) for part in installed.split(".")[:2] if part.isdigit())
    if found < OLDEST:
        raise ModelError(
            f"Transformers {installed} is too old to be traced: before 5.18 some routers speak in other ways than those "
            "proved, and early ones return probabilities as logits; install transformers>=5.18,<6"
        )
    if found >= BELOW:
        raise ModelError(
            f"Transformers {installed} is newer than what was proved (5.18 to 5.23): its routers may say something else; "
            "install transformers>=5.18,<6, or a newer moescope"
        )
