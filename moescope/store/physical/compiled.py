"""Loops over columns as machine code (Numba), or as they stand where there are few rows."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np

PLAIN = 4_000  # rows that the interpreter goes through, in all calls of a process, before Numba (0.9 s to import) is worth it
_gone = 0  # of these


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays as machine code, kept on disk where there is a place; who has few rows need not load Numba.

    Either way the same lines run, one value after the other, in the same precision: results are equal bit for bit. The call
    has both as `plain` and `machine()`.
    """
    machine = _machine(function)

    def plain(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    @wraps(function)
    def call(*arrays: Any) -> Any:
        return plain(*arrays) if _few(arrays) else machine()(*arrays)

    call.plain, call.machine = plain, machine  # type: ignore[attr-defined]
    return call


def reordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, always as machine code, for sums of finite floats that may be added up in any order: eight at once, then."""
    machine = _machine(function, fastmath={"reassoc", "contract", "nnan", "ninf", "nsz"})

    @wraps(function)
    def call(*arrays: Any) -> Any:
        return machine()(*arrays)

    return call


def _machine(function: Callable[..., Any], **options: Any) -> Callable[[], Callable[..., Any]]:
    @cache
    def machine() -> Callable[..., Any]:
        import numba

        try:
            return numba.njit(nogil=True, cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no place to keep it
            return numba.njit(nogil=True, **options)(function)  # type: ignore[no-any-return]

    return machine


def _few(arrays: tuple[Any, ...]) -> bool:
    """Whether so many rows are gone through as they stand; those are counted: of columns, and of what a loop is given first."""
    global _gone
    rows = max((a.size for i, a in enumerate(arrays) if isinstance(a, np.ndarray) and (a.ndim == 1 or not i)), default=0)
    few = _gone + rows <= PLAIN
    _gone += rows if few else 0
    return few


@compiled
def within(values: Any, low: int, high: int) -> bool:
    """Whether all values (N,) lie in low ... high - 1."""
    outside = 0
    for i in range(values.size):
        outside += (values[i] < low) | (values[i] >= high)
    return outside == 0
