"""The loops of from_shard.py, compiled (Numba): about a nanosecond for each count, without the interpreter's lock.

Rows come in stretches of one router and one set of labels: `starts` (M,) is where each begins, `stops` (M,) where it ends,
`place` (M,) the counters that it adds to. The caller has checked that every index lies inside its counters: nothing is checked
here. Loops go by rank and stay in a stretch, so that they run over contiguous memory.
"""

from typing import Any

import numpy as np

from ..physical.compiled import compiled


@compiled
def rises(values: Any) -> bool:
    """Whether each value (N,) is one more than the one before."""
    other = 0
    for i in range(1, values.size):
        other += values[i] != values[i - 1] + 1
    return other == 0


@compiled
def places(values: Any, most: int, found: Any) -> bool:
    """Copy values (N,) to found (N,), if they are 0 ... most."""
    outside = 0
    for i in range(values.size):
        outside += (values[i] < 0) | (values[i] > most)
        found[i] = values[i]
    return outside == 0


@compiled
def stretches(router: Any, combo: Any, starts: Any) -> int:
    """Write where router (N,) or combo (N,), if it has rows, change; gives how many stretches there are."""
    count = 0
    for i in range(router.size):
        if i == 0 or router[i] != router[i - 1] or (combo.size and combo[i] != combo[i - 1]):
            starts[count] = i
            count += 1
    return count


@compiled
def chosen(starts: Any, stops: Any, place: Any, expert: Any, weight: Any, found: Any, weights: Any) -> None:
    """Add to found (places, experts) how often expert (N,) has each value, and its weight (N,) or (0,) to weights."""
    for stretch in range(starts.size):
        row = found[place[stretch]]
        for i in range(starts[stretch], stops[stretch]):
            row[np.uintp(expert[i])] += 1
        if weight.size:
            heavy = weights[place[stretch]]
            for i in range(starts[stretch], stops[stretch]):
                heavy[np.uintp(expert[i])] += weight[i]


@compiled
def together(starts: Any, stops: Any, place: Any, experts: Any, found: Any) -> None:
    """Add to found (places, experts · experts) every pair of ranks of experts (k, N), the higher rank first."""
    wide = np.uintp(np.sqrt(found.shape[1]) + 0.5)
    for stretch in range(starts.size):
        row = found[place[stretch]]
        for a in range(experts.shape[0]):
            one = experts[a]
            for b in range(a + 1, experts.shape[0]):
                other = experts[b]
                for i in range(starts[stretch], stops[stretch]):
                    row[np.uintp(one[i]) * wide + np.uintp(other[i])] += 1


@compiled
def moments(starts: Any, stops: Any, place: Any, values: Any, empty: Any, found: Any, bad: Any) -> None:
    """Add (n, sum, sum of squares) of the finite values (N,) to found (places, 3), and mark rows that are not finite in bad
    (N,). empty (N,) or (0,): where there is no value."""
    for stretch in range(starts.size):
        n, total, squares = 0, 0.0, 0.0
        for i in range(starts[stretch], stops[stretch]):
            value = np.float64(values[i])
            if empty.size and empty[i]:
                continue
            if value - value != 0:
                bad[i] = True
                continue
            n += 1
            total += value
            squares += value * value
        row = found[place[stretch]]
        row[0] += n
        row[1] += total
        row[2] += squares


@compiled
def follow(
    pairs: Any, first: Any, starts: Any, stops: Any, token: Any, forward: Any, iteration: Any, expert: Any, found: Any
) -> bool:
    """Count in found (pairs, experts, experts) which expert of a router follows on which of another, row by row.

    pairs (P, 2): the routers; first (routers + 1,): where the stretches of each begin in starts and stops, which are sorted by
    router; token, forward, iteration (N,), the last or (0,); expert (N,). False if two rows are not of the same token.
    """
    for pair in range(pairs.shape[0]):
        here, there = first[pairs[pair, 0]], first[pairs[pair, 1]]
        end, last = first[pairs[pair, 0] + 1], first[pairs[pair, 1] + 1]
        a, b = 0, 0
        counts = found[pair]
        while here < end and there < last:
            many = min(stops[here] - starts[here] - a, stops[there] - starts[there] - b)
            one, other = starts[here] + a, starts[there] + b
            different = 0
            for i in range(many):
                different += (token[one + i] != token[other + i]) | (forward[one + i] != forward[other + i])
            if iteration.size:
                for i in range(many):
                    different += iteration[one + i] != iteration[other + i]
            if different:
                return False
            for i in range(many):
                counts[np.uintp(expert[one + i]), np.uintp(expert[other + i])] += 1
            a, b = a + many, b + many
            if starts[here] + a == stops[here]:
                here, a = here + 1, 0
            if starts[there] + b == stops[there]:
                there, b = there + 1, 0
        if here < end or there < last:
            return False
    return True


@compiled
def words(starts: Any, stops: Any, place: Any, word: Any, experts: Any, ran: Any, leading: Any, ranked: int) -> None:
    """Add to ran (places, words, experts) every expert of every word (N,), from experts (k, N), and to leading those of rank 0
    if these are `ranked`. What is of no place is not counted; words and experts lie inside.

    By row and not by rank: the experts of one word lie together.
    """
    for stretch in range(starts.size):
        if place[stretch] < 0 or place[stretch] >= ran.shape[0]:
            continue
        all_of, first_of = ran[place[stretch]], leading[place[stretch]]
        for i in range(starts[stretch], stops[stretch]):
            row = all_of[np.uintp(word[i])]
            for rank in range(experts.shape[0]):
                row[np.uintp(experts[rank, i])] += 1
            if ranked:
                first_of[np.uintp(word[i]), np.uintp(experts[0, i])] += 1
