"""The loop of rules.py, compiled (Numba): some nanoseconds for a decision."""

from typing import Any

from ...store.physical.compiled import compiled

FINE, MISSING, ZERO, TWICE, BEYOND, PARTLY = range(6)


@compiled
def scan(ids: Any, experts: int, missing: int, found: Any) -> int:
    """Write to found (N,) what every decision of ids (N, k) is; gives how many are not FINE.

    MISSING: every id is -1 or `missing`; PARTLY: some are below 0; BEYOND: one is `experts` or more; ZERO: all are 0 and k > 1;
    TWICE: an expert is there twice.
    """
    count, k = ids.shape
    other = 0
    for i in range(count):
        code, gone, zeros = 0, 0, 0
        for a in range(k):
            own = ids[i, a]
            gone += (own == -1) | (own == missing)
            zeros += own == 0
            if own < 0:
                code = 5
            elif own >= experts and code < 5:
                code = 4
            for b in range(a):
                if ids[i, b] == own and code == 0:
                    code = 3
        if gone == k:
            code = 1
        elif zeros == k and k > 1:
            code = 2
        found[i] = code
        other += code != 0
    return other


@compiled
def longest_repeat(ids: Any, tokens: Any, found: Any) -> None:
    """The longest stretch of equal rows of ids (T, n) in which tokens (T,), if it has rows, are not all the same.

    Writes where it begins and its length to found (2,).
    """
    count, n = ids.shape
    begin, differ = 0, tokens.size == 0
    for i in range(1, count + 1):
        same = i < count
        if same:
            for j in range(n):
                if ids[i, j] != ids[i - 1, j]:
                    same = False
                    break
        if same:
            if tokens.size and tokens[i] != tokens[i - 1]:
                differ = True
        else:
            if differ and i - begin > found[1]:
                found[0], found[1] = begin, i - begin
            begin, differ = i, tokens.size == 0
