"""Loops over columns as machine code (Numba)."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function of arrays as machine code, kept on disk where there is a place; who never calls it need not load Numba."""

    @cache
    def machine() -> Callable[..., Any]:
        import numba

        try:
            return numba.njit(nogil=True, cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no place to keep it
            return numba.njit(nogil=True, **options)(function)  # type: ignore[no-any-return]

    @wraps(function)
    def call(*arrays: Any) -> Any:
        return machine()(*arrays)

    return call


def reordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, whose sums may be added up in any order and whose floats are all finite: so it can take eight at once."""
    return compiled(function, fastmath={"reassoc", "contract", "nnan", "ninf", "nsz"})


@compiled
def within(values: Any, low: int, high: int) -> bool:
    """Whether all values (N,) lie in low ... high - 1."""
    outside = 0
    for i in range(values.size):
        outside += (values[i] < low) | (values[i] >= high)
    return outside == 0
