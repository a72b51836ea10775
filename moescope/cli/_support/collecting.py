"""How often Python looks for garbage: rarely while libraries and a model are loaded, which leave next to none of it.

PyTorch and Transformers make some million objects that stay, and the collector goes through them again and again: 5 to 9 % of
the time of loading.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()


@contextmanager
def rarely() -> Iterator[None]:
    """Until `as_usual`, or to the end of the block."""
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        as_usual()


def as_usual() -> None:
    """What Python begins with: from here on a model runs."""
    gc.set_threshold(*_USUAL)
