"""The kept sums of one shard, by counting: what its rows add to load, co-activation, transitions, labels and decisions.

They lie beside the shard's rows, so that whoever joins or watches a run adds up some hundred rows instead of reading millions.
definitions.py says in SQL what each of them means; a shard of a form that is not counted here has none, and the SQL is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ..physical.column_buffer import numbers, width
from ..physical.compiled import within
from ..physical.tables import STEPS
from . import counting_loops

Array = np.ndarray[Any, Any]
_MOST = 1 << 23  # counters
_NOTHING = np.zeros(0, np.uint8)


@dataclass
class Rows:
    """Rows of one routes_<k>; `experts` by rank, the number beyond the last one where none ran."""

    router: Array
    keys: list[Array]  # token, forward, iteration (no rows: 0 everywhere)
    experts: Array  # (k, N)
    weights: list[Array]  # no rows: unknown
    lost: list[Array | None]  # by rank: the experts that were chosen and did not run; the number beyond the last elsewhere
    moments: dict[str, tuple[Array, Array]]  # values, and where there are none (no rows: nowhere)
    ranked: bool = True  # whether the first expert is the first choice

    @classmethod
    def of(cls, table: pa.Table, none: int) -> "Rows | None":
        """Read a table; None if it has experts from `none` on, or ranks of some rows alone."""
        columns = dict(zip(table.column_names, table.columns))
        unranked = numbers(columns["unranked"], 0).astype(bool) if "unranked" in columns else _NOTHING
        if unranked.size and not unranked.all():
            return None
        ranks = range(width(columns))
        experts = np.empty((len(ranks), len(table)), np.uint16)
        for rank in ranks:
            if not counting_loops.places(numbers(columns[f"e{rank}"], none), none, experts[rank]):
                return None
        bits = numbers(columns["dropped"], 0) if "dropped" in columns else _NOTHING
        lost: list[Array | None] = [None] * len(ranks)
        if bits.any():
            dropped = [(bits >> rank) & 1 == 1 for rank in ranks]
            lost = [np.where(some, own, none).astype(np.uint16) for some, own in zip(dropped, experts)]
            experts[np.array(dropped)] = none
        weights = [numbers(c, 0) if (c := columns.get(f"w{rank}")) is not None else _NOTHING for rank in ranks]
        keys = [
            numbers(c, 0).astype(np.uint32, copy=False) if (c := columns.get(name)) is not None else _NOTHING
            for name in ("token", "forward", "iteration")
        ]
        values = {
            name: (numbers(c, 0), np.asarray(c.is_null()) if c.null_count else _NOTHING)
            for name in STEPS if (c := columns.get(name)) is not None
        }  # fmt: skip
        return cls(
            numbers(columns["router"]).astype(np.uint32, copy=False), keys, experts, weights, lost, values, not unranked.size
        )

    def stretches(self, combo: Array) -> tuple[Array, Array]:
        """Where rows of one router and one combo begin, and where they end."""
        starts = np.empty(len(self.router), np.intp)
        starts = starts[: counting_loops.stretches(self.router, combo, starts)]
        return starts, np.append(starts[1:], len(self.router))


class Tally:
    """Counts the shards of one run, whose routers and experts it knows; learns the labels of sequences as they come."""

    def __init__(self, routers: list[Mapping[str, Any]], experts: list[Mapping[str, Any]]) -> None:
        self.routers = 1 + max((r["router"] for r in routers), default=0)
        self.experts = 1 + max((e["expert"] for e in experts), default=0)
        ordered = sorted(
            routers, key=lambda r: (r.get("stack") or "", r["layer"] if r.get("layer") is not None else 1e9, r["router"])
        )
        self.next = [(a["router"], b["router"]) for a, b in pairwise(ordered) if a.get("stack") == b.get("stack")]
        self.combos: dict[tuple[tuple[str, str], ...], int] = {(): 0}  # of labels that some sequence has
        self._combo_of = np.zeros(0, np.uint32)  # by sequence; a dict of a million takes a hundred bytes for each
        self.rows: list[Rows] | None = None  # of the shard that was counted last; None where it has others too

    def of(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """{rollup: its rows} of one shard; empty where it cannot be counted."""
        self.rows = None
        self._learn(tables.get("sequence_labels"))
        combo = self._combo(tables.get("tokens"))
        wide = self.experts + 1
        cells = max(len(self.combos), wide) * self.routers * wide
        if combo is None or cells > _MOST or "decisions_long" in tables:
            return {}
        routed = [Rows.of(table, self.experts) for name, table in tables.items() if name.startswith("routes_")]
        known = [rows for rows in routed if rows is not None and self._knows(rows, *combo)]
        transitions = self._transitions(known) if len(known) == len(routed) else None
        self.rows = known if len(known) == len(routed) else None
        if transitions is None:
            return {}
        sums = _Sums(self)
        for rows in known:
            sums.add(rows, combo[1][rows.keys[0] - combo[0]] if len(self.combos) > 1 else _NOTHING)
        return sums.tables() | transitions

    def _learn(self, labels: pa.Table | None) -> None:
        """Note the labels of new sequences."""
        found: dict[int, set[tuple[str, str]]] = {}
        for row in labels.to_pylist() if labels is not None else []:
            found.setdefault(row["sequence"], set()).add((row["kind"], row["label"]))
        self._reach(max(found, default=-1))
        for sequence, said in found.items():
            self._combo_of[sequence] = self.combos.setdefault(tuple(sorted(said)), len(self.combos))

    def _combo(self, tokens: pa.Table | None) -> tuple[int, Array] | None:
        """(first token, the labels of every token from there on); None if their keys do not run on."""
        if tokens is None:
            return None
        token, sequence = (numbers(tokens[name]) for name in ("token", "sequence"))
        if not counting_loops.rises(token):
            return None
        starts = np.empty(len(sequence), np.intp)
        starts = starts[: counting_loops.stretches(sequence, _NOTHING, starts)]
        self._reach(int(sequence.max(initial=0)))
        said = self._combo_of[sequence[starts]].astype(np.intp)
        return int(token[0]), np.repeat(said, np.diff(starts, append=len(sequence)))

    def _reach(self, sequence: int) -> None:
        """Have room for this sequence; one of which nothing was learned has no label."""
        if (short := sequence + 1 - len(self._combo_of)) > 0:
            self._combo_of = np.append(self._combo_of, np.zeros(max(short, len(self._combo_of) // 2), np.uint32))

    def _knows(self, rows: Rows, first: int, combo: Array) -> bool:
        """Whether these are its routers, and tokens that this shard names."""
        return within(rows.keys[0], first, first + len(combo)) and within(rows.router, 0, self.routers)

    def _transitions(self, routed: list[Rows]) -> dict[str, pa.Table] | None:
        """From the first expert of a router to that of the next; None unless both saw the same tokens in the same order."""
        parts = [rows.stretches(_NOTHING) for rows in routed]
        routers = [rows.router[starts] for rows, (starts, _) in zip(routed, parts)]
        seen = [set(some.tolist()) for some in routers]
        if routed and not any(rows.ranked for rows in routed):
            return {}  # no first choices
        same = len({(rows.keys[2].size > 0, rows.ranked) for rows in routed}) == 1
        if not same or len(set().union(*seen)) < sum(map(len, seen)):
            return None
        begin = np.cumsum([0, *(len(rows.router) for rows in routed)])
        starts, stops = (_joined([part[i] + shift for part, shift in zip(parts, begin)]) for i in (0, 1))
        router = _joined(routers)
        order = np.argsort(router, kind="stable")
        first = np.searchsorted(router[order], np.arange(self.routers + 1))
        pairs = [(a, b) for a, b in self.next if a in set().union(*seen) and b in set().union(*seen)]
        keys = [_joined([rows.keys[i] for rows in routed]) for i in range(3)]
        leading = _joined([rows.experts[0] for rows in routed])
        wide = self.experts + 1
        counts = np.zeros((len(pairs), wide, wide), np.int64)
        places = np.array(pairs, np.intp).reshape(-1, 2)
        if not counting_loops.follow(places, first, starts[order], stops[order], *keys, leading, counts):
            return None
        pair, expert, other = np.nonzero(counts[:, :-1, :-1])
        columns = (*places[pair].T, expert, other, counts[pair, expert, other])
        return (
            _table("transition", dict(zip(("router", "next_router", "expert", "next_expert", "n"), columns))) if pairs else {}
        )


class _Sums:
    """Counters of one shard; every axis over experts has a last place for none."""

    def __init__(self, tally: Tally) -> None:
        self.combos, routers, wide = tally.combos, tally.routers, tally.experts + 1
        self.shape = (len(tally.combos), routers, wide)
        places = len(tally.combos) * routers
        self.ran, self.leading = (np.zeros((places, wide), np.int64) for _ in range(2))
        self.weight = np.zeros((places, wide))
        self.dropped, self.pairs = np.zeros((routers, wide), np.int64), np.zeros((routers, wide * wide), np.int64)
        self.rows, self.unrouted, self.nonfinite = (np.zeros(routers, np.int64) for _ in range(3))
        self.moments = {name: np.zeros((routers, 3)) for name in STEPS}  # n, sum, sum of squares

    def add(self, rows: Rows, combo: Array) -> None:
        """Count some rows; `combo` (N,) are the labels of their tokens (no rows: there are none)."""
        _, routers, wide = self.shape
        starts, stops = part = rows.stretches(combo)
        router = rows.router[starts].astype(np.intp)
        place = router + routers * combo[starts] if combo.size else router
        for rank, (expert, weight, lost) in enumerate(zip(rows.experts, rows.weights, rows.lost)):
            counts = self.ran if rank or not rows.ranked else self.leading
            counting_loops.chosen(*part, place, expert, weight, counts, self.weight)
            if lost is not None:
                counting_loops.chosen(*part, router, lost, _NOTHING, self.dropped, self.weight)
        counting_loops.together(*part, router, rows.experts, self.pairs)
        np.add.at(self.rows, router, stops - starts)
        if bool((rows.experts[0] == wide - 1).any()):
            self.unrouted += np.bincount(rows.router[(rows.experts == wide - 1).all(0)], minlength=routers)
        bad = np.zeros(len(rows.router), bool)
        for name, (values, empty) in rows.moments.items():
            own = bad if name != "margin" else bad.copy()
            counting_loops.moments(*part, router, values, empty, self.moments[name], own)
        if bad.any():
            self.nonfinite += np.bincount(rows.router[bad], minlength=routers)

    def tables(self) -> dict[str, pa.Table]:
        """The rows of the rollups."""
        ran, leading, weight = (a.reshape(self.shape)[..., :-1] for a in (self.ran + self.leading, self.leading, self.weight))
        dropped = self.dropped[:, :-1]
        at = router, expert = np.nonzero(ran.sum(0) + dropped)
        load = {"router": router, "expert": expert, "assignments": ran.sum(0)[at], "first": leading.sum(0)[at]}
        found = _table("load", load | {"dropped": dropped[at], "weight": weight.sum(0)[at]})
        pairs = self.pairs.reshape(-1, *self.shape[2:], *self.shape[2:])[:, :-1, :-1]
        pairs = pairs + pairs.transpose(0, 2, 1)
        cells = np.nonzero(np.triu(pairs, 1))
        found |= _table("coactivation", dict(zip(("router", "expert", "other"), cells)) | {"n": pairs[cells]})
        seen = np.flatnonzero(self.rows)
        decisions = {"router": seen, "decisions": self.rows[seen], "selected": ran.sum((0, 2))[seen]}
        decisions |= {"unrouted": self.unrouted[seen], "nonfinite": self.nonfinite[seen]}
        powers = {
            f"{n}_{power}": m[seen, i] for n, m in self.moments.items() for i, power in enumerate(("n", "sum", "squares"))
        }
        return found | _table("decision", decisions | powers) | self._by_label(ran, leading, weight)

    def _by_label(self, ran: Array, leading: Array, weight: Array) -> dict[str, pa.Table]:
        combo, router, expert = at = np.nonzero(ran)
        said = [list(combination) for combination in self.combos]
        rows = [(place, kind, label) for place, number in enumerate(combo) for kind, label in said[number]]
        if not rows:
            return {}
        place, kind, label = zip(*rows)
        take = np.array(place)
        numbers = {"assignments": ran[at], "first": leading[at], "weight": weight[at], "router": router, "expert": expert}
        return _table("label", {n: v[take] for n, v in numbers.items()} | {"kind": list(kind), "label": list(label)})


def _table(name: str, columns: Mapping[str, Any]) -> dict[str, pa.Table]:
    return {f"{name}_rollup": pa.table(dict(columns))}


def _joined(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
