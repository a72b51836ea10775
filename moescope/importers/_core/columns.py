"""Sequences of an engine as columns of the store: tokens, forwards, and one row for each decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...decisions import MAX_WIDTH, pack_slots, ranked
from .captured import Array, Captured


@dataclass
class Keys:
    """The first free key of each kind, as `RunWriter.take` gave it."""

    sequence: int
    token: int
    forward: int


@dataclass
class Placed:
    """Of every row of some sequences in order: its token, its forward; and where decisions were captured (None: everywhere)."""

    token: Array
    forward: Array
    there: Array | None


def forwards_of(one: Captured) -> list[tuple[str, int]]:
    """(phase, tokens) of the forwards that a sequence is told by: an engine's own batches are not in a capture."""
    if not one.named:
        return [("forward", one.rows)]
    before = max(0, min(one.rows, one.prompt - one.start))
    return [(phase, n) for phase, n in (("prefill", before), ("decode", one.rows - before)) if n]


def placed(sequences: Sequence[Captured], captured: Sequence[Array | None], keys: Keys) -> Placed:
    """Which token and forward each row is."""
    tokens, forwards, token, forward = [], [], keys.token, keys.forward
    for one in sequences:
        tokens.append(token + one.start + np.arange(one.rows))
        counts = [n for _, n in forwards_of(one)]
        forwards.append(forward + np.repeat(np.arange(len(counts)), counts))
        token, forward = token + one.length, forward + len(counts)
    there = None
    if any(mask is not None for mask in captured):
        shape = sequences[0].experts.shape[1]
        parts = [np.ones((one.rows, shape), bool) if mask is None else mask for one, mask in zip(sequences, captured)]
        there = np.concatenate(parts)
    return Placed(np.concatenate(tokens).astype(np.uint32), np.concatenate(forwards).astype(np.uint32), there)


def decision_columns(sequences: Sequence[Captured], where: Placed, ordered: bool) -> dict[str, dict[str, Any]]:
    """{table: columns} of their decisions, router by router. `ordered`: experts come by weight, or there are weights to order
    by; else the engine's order is kept and rows say that it is no rank."""
    experts = np.concatenate([one.experts for one in sequences]).astype(np.int32, copy=False)  # (N, R, k)
    weights = None
    if sequences[0].weights is not None:
        weights = np.concatenate([np.asarray(one.weights, np.float32) for one in sequences])
    count, routers, k = experts.shape
    keep = None if where.there is None else where.there.T.reshape(-1)
    columns = {
        "forward": _kept(np.tile(where.forward, routers), keep),
        "router": _kept(np.repeat(np.arange(routers, dtype=np.uint32), count), keep),
        "token": _kept(np.tile(where.token, routers), keep),
    }
    by_rank = _kept(experts.transpose(1, 0, 2).reshape(-1, k), keep)
    heavy = None if weights is None else _kept(weights.transpose(1, 0, 2).reshape(-1, k), keep)
    order = ranked(by_rank[None], heavy[None]) if ordered and heavy is not None else None
    if k > MAX_WIDTH:
        return _long(columns, by_rank, heavy, None if order is None else order[0], ordered)
    if order is not None and heavy is not None:
        by_rank, heavy = np.take_along_axis(by_rank, order[0], -1), np.take_along_axis(heavy, order[0], -1)
        columns["slots"] = np.asarray(pack_slots(order[0], k))
    if not ordered:
        columns["unranked"] = np.ones(len(by_rank), bool)
    empty = by_rank < 0
    for rank in range(k):
        none = empty[:, rank] if empty[:, rank].any() else None  # of decisions of fewer experts
        columns[f"e{rank}"] = pa.array(by_rank[:, rank].astype(np.uint16), mask=none)
        if heavy is not None:
            columns[f"w{rank}"] = pa.array(np.ascontiguousarray(heavy[:, rank]), mask=none)
    return {f"routes_{k}": columns}


def _kept(values: Array, keep: Array | None) -> Array:
    return values if keep is None else values[keep]


def _long(keys: dict[str, Any], experts: Array, weights: Array | None, order: Array | None, ordered: bool) -> dict[str, Any]:
    """More experts a decision than a row of routes_<k> holds."""
    rows, k = experts.shape
    slot = np.broadcast_to(np.arange(k), (rows, k)) if order is None else order
    own = np.take_along_axis(experts, slot, -1).reshape(-1)
    there = own >= 0
    each: dict[str, Any] = {name: np.repeat(values, k) for name, values in keys.items()}
    each |= {"expert": own.astype(np.uint16), "slot": slot.reshape(-1).astype(np.uint16)}
    if ordered:
        each["rank"] = np.tile(np.arange(k, dtype=np.uint16), rows)
    if weights is not None:
        each["weight"] = np.take_along_axis(weights, slot, -1).reshape(-1)
    each = {name: values[there] for name, values in each.items()} | {"iteration": 0, "dropped": False}
    decisions = {**keys, "iteration": 0, "selected": (experts >= 0).sum(-1).astype(np.uint16)}
    return {"decisions_long": decisions, "assignments_long": each}


def input_columns(sequences: Sequence[Captured], keys: Keys) -> dict[str, dict[str, Any]]:
    """{table: columns} of the sequences, their labels, tokens and forwards."""
    number = keys.sequence + np.arange(len(sequences))
    lengths = np.array([one.length for one in sequences])
    found = {"sequences": _sequences(sequences, number), "tokens": _tokens(sequences, number, lengths, keys)}
    labels = [(int(n), kind, label) for n, one in zip(number, sequences) for kind, label in one.labels.items()]
    if labels:
        found["sequence_labels"] = dict(zip(("sequence", "kind", "label"), map(list, zip(*labels))))
    phases = [phase for one in sequences for phase, _ in forwards_of(one)]
    counts = [n for one in sequences for _, n in forwards_of(one)]
    found["forwards"] = {
        "forward": keys.forward + np.arange(len(phases)), "phase": phases, "step": 0, "batch_size": 1,
        "tokens": np.array(counts),
    }  # fmt: skip
    return {name: columns for name, columns in found.items() if name != "forwards" or phases}


def _sequences(sequences: Sequence[Captured], number: Array) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "sequence": number,
        "source": [one.source for one in sequences],
        "source_row": np.array([one.row for one in sequences], np.int64),
        "part": 0,
        "beam": 0,
        "document": [one.document or f"{one.source}:{one.request or one.row}" for one in sequences],
        "stack": "decoder",
        "tokens": np.array([one.prompt if one.named else one.length for one in sequences]),
    }
    for name, values in {
        "text": [one.text for one in sequences],
        "domain": [one.labels.get("domain") for one in sequences],
        "class": [one.labels.get("class") for one in sequences],
    }.items():
        if any(value is not None for value in values):
            columns[name] = pa.array(values, pa.string())
    return columns


def _tokens(sequences: Sequence[Captured], number: Array, lengths: Array, keys: Keys) -> dict[str, Any]:
    total = int(lengths.sum())
    position = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    prompts = np.repeat([one.prompt if one.named else one.length for one in sequences], lengths)
    columns: dict[str, Any] = {
        "token": keys.token + np.arange(total),
        "sequence": np.repeat(number, lengths),
        "position": position,
        "unit": "text" if sequences[0].named else "row",
        "special": False,
        "generated": position >= prompts,
    }
    known = [np.full(one.length, -1) if one.tokens is None else np.asarray(one.tokens, np.int64) for one in sequences]
    ids = np.concatenate(known) if known else np.empty(0, np.int64)
    if (ids >= 0).any():
        columns["vocab_id"] = pa.array(ids, mask=ids < 0).cast(pa.uint32())
    return columns
