"""The kept sums of one shard, by counting: what its rows add to load, co-activation, transitions, labels and decisions.

They lie beside the shard's rows, so that whoever joins or watches a run adds up some hundred rows instead of reading millions.
rollups.py says in SQL what each of them means; a shard of a form that is not counted here has none, and the SQL is asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from .pieces import numbers, width
from .routes import STEPS

Array = np.ndarray[Any, Any]
_SLICE = 1 << 15  # rows counted at a time, at least: they stay in the cache
_MOST = 1 << 23  # counters


@dataclass
class _Rows:
    """Rows of one routes_<k>; `experts` by rank, the number beyond the last one where none ran."""

    router: Array
    key: tuple[Array, ...]  # forward, iteration, token
    experts: list[Array]
    dropped: list[Array | None]  # which were chosen but did not run; None: none of the table
    chosen: list[Array]
    weights: list[Array]
    moments: dict[str, tuple[Array, Array | None]]  # values, and where there are any (None: everywhere)

    def slices(self, counters: int) -> Iterator["_Rows"]:
        """The same rows, some at a time: more of them where there are many counters to add up each time."""
        size = max(_SLICE, 8 * counters)
        for start in range(0, len(self.router), size):
            some = slice(start, start + size)
            lost = [None if d is None else d[some] for d in self.dropped]
            experts, chosen, weights = (
                [values[some] for values in column] for column in (self.experts, self.chosen, self.weights)
            )
            moments = {name: (values[some], None if n is None else n[some]) for name, (values, n) in self.moments.items()}
            yield _Rows(self.router[some], tuple(k[some] for k in self.key), experts, lost, chosen, weights, moments)


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
        self._combo_of: dict[int, int] = {}

    def of(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """{rollup: its rows} of one shard; empty where it cannot be counted."""
        self._learn(tables.get("sequence_labels"))
        combo = self._combo(tables.get("tokens"))
        wide = self.experts + 1
        cells = max(len(self.combos) * self.routers * wide, self.routers * wide * wide)
        if combo is None or cells > _MOST or "decisions_long" in tables:
            return {}
        routed = [self._rows(table) for name, table in tables.items() if name.startswith("routes_")]
        if not all(combo[0] <= rows.key[2].min() <= rows.key[2].max() < combo[0] + len(combo[1]) for rows in routed):
            return {}  # tokens that another shard names
        transitions = self._transitions(routed)
        if transitions is None:
            return {}
        sums = _Sums(self, *combo)
        for rows in routed:
            for some in rows.slices(sums.pairs.size):
                sums.add(some)
        return sums.tables() | transitions

    def _learn(self, labels: pa.Table | None) -> None:
        """Note the labels of new sequences."""
        found: dict[int, set[tuple[str, str]]] = {}
        for row in labels.to_pylist() if labels is not None else []:
            found.setdefault(row["sequence"], set()).add((row["kind"], row["label"]))
        for sequence, said in found.items():
            self._combo_of[sequence] = self.combos.setdefault(tuple(sorted(said)), len(self.combos))

    def _combo(self, tokens: pa.Table | None) -> tuple[int, Array] | None:
        """(first token, the labels of every token from there on); None if their keys do not run on."""
        if tokens is None:
            return None
        token, sequence = (numbers(tokens[name]) for name in ("token", "sequence"))
        if not bool((np.diff(token.astype(np.int64)) == 1).all()):
            return None
        names, inverse = np.unique(sequence, return_inverse=True)
        return int(token[0]), np.array([self._combo_of.get(int(name), 0) for name in names], np.intp)[inverse]

    def _rows(self, table: pa.Table) -> _Rows:
        columns = dict(zip(table.column_names, table.columns))
        k = width(columns)
        zero = np.zeros(len(table), np.uint8)
        chosen = [numbers(columns[f"e{rank}"], self.experts) for rank in range(k)]
        bits = numbers(columns["dropped"], 0) if "dropped" in columns else zero
        some = bool(bits.any())
        lost = [(bits >> rank) & 1 == 1 if some else None for rank in range(k)]
        ran = [e if d is None else np.where(d, self.experts, e) for e, d in zip(chosen, lost)]
        key = (
            numbers(columns["forward"]),
            numbers(columns["iteration"], 0) if "iteration" in columns else zero,
            numbers(columns["token"]),
        )
        weights = [numbers(columns[f"w{rank}"], 0) if f"w{rank}" in columns else zero for rank in range(k)]
        moments = {
            name: (numbers(c, 0), ~np.asarray(c.is_null()) if c.null_count else None)
            for name in STEPS if (c := columns.get(name)) is not None
        }  # fmt: skip
        return _Rows(numbers(columns["router"]), key, ran, lost, chosen, weights, moments)

    def _transitions(self, routed: list[_Rows]) -> dict[str, pa.Table] | None:
        """From the first expert of a router to that of the next; None unless both saw the same tokens in the same order."""
        all_of_them = [_by_router(rows) for rows in routed]
        seen = {router: own for some in all_of_them for router, own in some.items()}
        if len(seen) < sum(map(len, all_of_them)):
            return None
        found: list[list[Array]] = []
        wide = self.experts + 1
        for a, b in self.next:
            if a not in seen or b not in seen:
                continue
            if not all(np.array_equal(x, y) for x, y in zip(seen[a][1:], seen[b][1:])):
                return None
            cell = np.multiply(seen[a][0], wide, dtype=np.intp)
            counts = np.bincount(np.add(cell, seen[b][0], dtype=np.intp), minlength=wide * wide).reshape(wide, wide)[:-1, :-1]
            one, other = np.nonzero(counts)
            found.append([np.full(len(one), a), np.full(len(one), b), one, other, counts[one, other]])
        names = ("router", "next_router", "expert", "next_expert", "n")
        return _table("transition", dict(zip(names, map(np.concatenate, zip(*found))))) if found else {}


class _Sums:
    """Counters of one shard; every axis over experts has a last place for none."""

    def __init__(self, tally: Tally, first: int, combo: Array) -> None:
        self.first, self.combo, self.combos = first, combo, tally.combos
        routers, wide = tally.routers, tally.experts + 1
        self.shape = (len(tally.combos), routers, wide)
        self.ran, self.leading, self.weight = (np.zeros(self.shape) for _ in range(3))
        self.dropped, self.pairs = np.zeros((routers, wide)), np.zeros((routers, wide, wide))
        self.rows, self.unrouted, self.nonfinite = (np.zeros(routers) for _ in range(3))
        self.moments = {name: np.zeros((3, routers)) for name in STEPS}  # n, sum, sum of squares

    def add(self, rows: _Rows) -> None:
        """Count some rows."""
        _, routers, wide = self.shape
        router = rows.router.astype(np.intp)
        place = router * wide
        base = place if len(self.combos) == 1 else (self.combo[rows.key[2] - self.first] * routers + router) * wide
        experts = [expert.astype(np.intp) for expert in rows.experts]
        self.rows += np.bincount(router, minlength=routers)
        for rank, (expert, weight) in enumerate(zip(experts, rows.weights)):
            cell = base + expert
            counts = np.bincount(cell, minlength=self.ran.size).reshape(self.shape)
            self.ran += counts
            self.leading += counts if rank == 0 else 0
            self.weight += np.bincount(cell, weight, minlength=self.ran.size).reshape(self.shape)
            if (lost := rows.dropped[rank]) is not None:
                self.dropped += np.bincount((place + rows.chosen[rank])[lost], minlength=self.dropped.size).reshape(
                    routers, wide
                )
        for rank, expert in enumerate(experts[:-1]):
            row = (place + expert) * wide
            for other in experts[rank + 1 :]:
                self.pairs += np.bincount(row + other, minlength=self.pairs.size).reshape(self.pairs.shape)
        if bool((experts[0] == wide - 1).any()):
            none = np.logical_and.reduce([expert == wide - 1 for expert in experts])
            self.unrouted += np.bincount(router[none], minlength=routers)
        self._moments(rows, router)

    def _moments(self, rows: _Rows, router: Array) -> None:
        starts = np.concatenate([[0], np.flatnonzero(np.diff(router)) + 1])
        bad = np.zeros(0, np.intp)
        for name, (values, there) in rows.moments.items():
            values = values.astype(np.float64)
            n = np.ones(len(values)) if there is None else there.astype(np.float64)
            if not np.isfinite(values.sum()):
                off = np.flatnonzero(~np.isfinite(values))
                values[off], n[off] = 0, 0
                bad = bad if name == "margin" else np.union1d(bad, off)
            for power, value in enumerate((n, values, values * values)):
                self.moments[name][power] += np.bincount(
                    router[starts], np.add.reduceat(value, starts), minlength=self.shape[1]
                )
        self.nonfinite += np.bincount(router[bad], minlength=self.shape[1])

    def tables(self) -> dict[str, pa.Table]:
        """The rows of the rollups."""
        ran, leading, weight = (a[..., :-1] for a in (self.ran, self.leading, self.weight))
        dropped = self.dropped[:, :-1]
        router, expert = np.nonzero(ran.sum(0) + dropped)
        at = (router, expert)
        load = {"router": router, "expert": expert, "assignments": ran.sum(0)[at], "first": leading.sum(0)[at]}
        found = _table("load", load | {"dropped": dropped[at], "weight": weight.sum(0)[at]})
        pairs = self.pairs[:, :-1, :-1] + self.pairs[:, :-1, :-1].transpose(0, 2, 1)
        cells = np.nonzero(np.triu(pairs, 1))
        found |= _table("coactivation", dict(zip(("router", "expert", "other"), cells)) | {"n": pairs[cells]})
        seen = np.flatnonzero(self.rows)
        decisions = {"router": seen, "decisions": self.rows[seen], "selected": ran.sum((0, 2))[seen]}
        decisions |= {"unrouted": self.unrouted[seen], "nonfinite": self.nonfinite[seen]}
        powers = {
            f"{n}_{power}": m[i][seen] for n, m in self.moments.items() for i, power in enumerate(("n", "sum", "squares"))
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


def _by_router(rows: _Rows) -> dict[int, list[Array]]:
    """(first expert, forward, iteration, token) of every router's rows, in their order."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(rows.router)) + 1])
    columns, router = (rows.experts[0], *rows.key), rows.router
    if len(starts) * 64 > len(router):  # many short runs of one router: sort instead
        order = np.argsort(router.astype(np.uint16), kind="stable")
        columns, router = tuple(values[order] for values in columns), router[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(router)) + 1])
    runs: dict[int, list[slice]] = {}
    for start, stop in pairwise([*starts.tolist(), len(router)]):
        runs.setdefault(int(router[start]), []).append(slice(start, stop))
    return {number: [np.concatenate([values[run] for run in own]) for values in columns] for number, own in runs.items()}


def _table(name: str, columns: Mapping[str, Any]) -> dict[str, pa.Table]:
    return {f"{name}_rollup": pa.table(dict(columns))}
