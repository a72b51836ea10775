"""Can this be what a model executed? Every rule is a fault of engines that was seen in the wild; a refusal names it.

Asked of each sequence: ids in range, no expert twice in a decision, no plane or row of zeros, no row that repeats under other
tokens. What the engine itself marks as not captured (-1) is no fault: such decisions are left out and counted.
"""

from math import comb, log2

import numpy as np

from .captured import Array, Captured, Fault, Notes
from .model import Model
from .scanning import BEYOND, FINE, MISSING, PARTLY, TWICE, ZERO, longest_repeat, scan

_BITS = 40.0  # a repetition that chance gives once in 2^40 is none of chance
_FEW = 8  # rows from which on a constant expert of a top-1 router is looked at


def sound(one: Captured, model: Model, notes: Notes) -> Array | None:
    """Which decisions (rows, routers) were captured; None: all of them. Fault where the capture cannot be right."""
    ids = one.experts
    _shape(one, model)
    _width(one, model)
    if not one.rows:
        return None
    flat = np.ascontiguousarray(ids.reshape(-1, ids.shape[-1]), np.int32)
    codes = np.empty(len(flat), np.uint8)
    missing = np.iinfo(ids.dtype).max if ids.dtype.kind == "u" else -1
    there = None
    if (
        _of_any_number(flat, model.experts, codes)
        if one.varies
        else scan(flat, model.experts, missing if missing < 2**31 else -1, codes)
    ):
        codes = codes.reshape(ids.shape[:2])
        _faults(one, model, codes)
        there = codes == FINE
        gone = int((~there).all(axis=1).sum())
        notes.count("{n} tokens were not captured and have no decision (engines mark rows of their prefix cache by -1)", gone)
        notes.count("{n} decisions of single layers were not captured", int((~there).sum()) - gone * ids.shape[1])
        if not there.any():
            raise Fault(
                f"{one.where} holds no decision: every id is -1, which engines write for rows served from a prefix cache"
            )
    if one.weights is not None:
        _weights(one, model, np.asarray(one.weights), (ids >= 0) if there is None or one.varies else there[..., None])
    _repeats(one, model, flat.reshape(ids.shape))
    if one.experts.shape[-1] == 1:
        _constant(one, model)
    return there


def _of_any_number(ids: Array, experts: int, codes: Array) -> int:
    """As `scan`, of decisions whose last places may be empty."""
    empty = ids < 0
    own = np.sort(np.where(empty, -1 - np.arange(ids.shape[1]), ids), -1)  # empty places differ from each other
    codes[:] = FINE
    codes[(own[:, 1:] == own[:, :-1]).any(-1)] = TWICE
    codes[(ids >= experts).any(-1)] = BEYOND
    codes[empty.all(-1)] = MISSING
    return int((codes != FINE).sum())


def _shape(one: Captured, model: Model) -> None:
    rows, routers, k = one.experts.shape if one.experts.ndim == 3 else (0, 0, 0)
    if one.experts.ndim != 3:
        raise Fault(f"{one.where}: routed experts of shape {one.experts.shape}, where (rows, layers, top-k) is expected")
    if routers != len(model.routed) and rows:
        raise Fault(
            f"{one.where}: {routers} layers, and {model.name} has {len(model.routed)} routers in {model.layers} layers: layers "
            "were lost (seen with pipeline parallelism, vLLM 35623), or --model names another model"
        )
    if k != model.top_k and rows:
        raise Fault(
            f"{one.where}: {k} experts per decision, and {model.name} chooses {model.top_k}: --model names another model"
        )


def _width(one: Captured, model: Model) -> None:
    kind = one.experts.dtype
    if kind.kind not in "iu":
        raise Fault(f"{one.where}: experts are {kind}, not whole numbers")
    if np.iinfo(kind).max < model.experts - 1:
        raise Fault(
            f"{one.where}: {kind} numbers end at {np.iinfo(kind).max}, and {model.name} has {model.experts} experts: higher "
            f"ones "
            "were wrapped around, so that ids are wrong; capture with a wider type"
        )


def _faults(one: Captured, model: Model, codes: Array) -> None:
    zero = (codes == ZERO) | (codes == TWICE) & (one.experts == 0).all(-1)
    if zero.any():
        raise Fault(_zeros(one, model, zero))
    for code, say in ((BEYOND, _beyond), (TWICE, _twice), (PARTLY, _partly)):
        rows, routers = np.nonzero(codes == code)
        if len(rows):
            raise Fault(say(one, model, int(rows[0]), int(routers[0]), len(rows)))


def _zeros(one: Captured, model: Model, zero: Array) -> str:
    rows, planes = zero.all(axis=1), zero.all(axis=0)
    generated = np.arange(one.rows) + one.start >= one.prompt
    if zero.all():
        why = "nothing was captured (vLLM 54730 and 44116: a monolithic kernel never calls the capture)"
        return f"{one.where}: every id of every row is 0, and experts cannot repeat within a decision: {why}; {_AGAIN}"
    if planes.any() and not rows.any():
        layers = ", ".join(str(model.routed[i]) for i in np.flatnonzero(planes)[:8])
        return (
            f"{one.where}: the rows of layer {layers} are all 0, and that layer has a router: its kernel never called the "
            f"capture, or the layers are shifted (vLLM 0.21 counts them in order of creation); {_AGAIN}"
        )
    if rows.any() and (rows == ~generated).all():
        last = one.start + int(rows.sum()) - 1
        return (
            f"{one.where}: the prompt's rows {one.start} to {last} are all 0, while those of the answer are not: read from "
            f"another cache group (tpu-inference 3583); {_AGAIN}"
        )
    gaps = set(np.diff(np.flatnonzero(rows)).tolist())
    if rows.sum() > 2 and len(gaps) == 1 and (step := gaps.pop()) > 1:
        return (
            f"{one.where}: every {_nth(step)} row is all 0, from row {one.start + int(np.argmax(rows))} on: the rows of other "
            f"tensor-parallel ranks are missing (vllm-ascend 15451); {_AGAIN}"
        )
    which = np.flatnonzero(rows if rows.any() else zero.any(axis=1))
    return (
        f"{one.where}: {len(which)} of {one.rows} rows are 0 in {'every layer' if rows.any() else 'some layers'} (rows "
        f"{_spans(which + one.start)}), and experts cannot repeat within a decision: those rows were not captured, or a chunk "
        f"of the prefill was lost; {_AGAIN}"
    )


_AGAIN = "capture again with a version or kernel that records every layer (or leave it out by --keep-going)"


def _beyond(one: Captured, model: Model, row: int, router: int, n: int) -> str:
    expert = int(one.experts[row, router].max())
    return (
        f"{one.where}: expert {expert} in layer {model.routed[router]}, row {one.start + row} ({n} such decisions), and "
        f"{model.name} has {model.experts}: these are physical ids of a server that keeps copies of experts (EPLB), which need "
        "its physical-to-logical map, or --model names another model"
    )


def _twice(one: Captured, model: Model, row: int, router: int, n: int) -> str:
    ids = one.experts[row, router].tolist()
    return (
        f"{one.where}: expert {max(ids, key=ids.count)} twice in layer {model.routed[router]}, row {one.start + row} (ids "
        f"{ids}; "
        f"{n} such decisions), which no top-{model.top_k} gives: ids were wrapped by a narrow type, or rows of two requests "
        f"mixed"
    )


def _partly(one: Captured, model: Model, row: int, router: int, n: int) -> str:
    ids = one.experts[row, router].tolist()
    return (
        f"{one.where}: ids {ids} in layer {model.routed[router]}, row {one.start + row} ({n} such decisions): a decision is "
        f"captured whole or not at all (-1 throughout), so --model's top-{model.top_k} is not what was served, or the row "
        f"is damaged"
    )


def _weights(one: Captured, model: Model, weights: Array, there: Array) -> None:
    """What multiplies an expert is a number, and not below 0."""
    wrong = there & ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row, router, slot = (int(place[0]) for place in np.nonzero(wrong))
        value = float(weights[row, router, slot])
        why = "these are logits, no weights" if np.isfinite(value) else "it was not computed, or divided by 0"
        raise Fault(
            f"{one.where}: a routing weight of {value:.4g} in layer {model.routed[router]}, row {one.start + row} "
            f"({int(wrong.sum()):,} such weights): {why}; leave weights out, or give those that multiplied the experts"
        )


def _repeats(one: Captured, model: Model, ids: Array) -> None:
    """Rows that stay the same while tokens change: a CUDA graph replayed what was captured once."""
    possible = log2(max(1, comb(model.experts, model.top_k))) * len(model.routed)
    tokens = np.empty(0, np.int64)
    if one.tokens is not None:
        tokens = np.asarray(one.tokens[one.start : one.start + one.rows], np.int64)
        tokens = tokens if len(tokens) == one.rows else np.empty(0, np.int64)
    longest = np.zeros(2, np.int64)
    longest_repeat(_with_weights(ids.reshape(len(ids), -1), one), tokens, longest)
    first, n = (int(value) for value in longest)
    if n > 2 and (n - 1) * possible > _BITS and bool((ids[first] >= 0).all()):
        differ = "though their tokens differ" if len(tokens) else "whatever their tokens are"
        raise Fault(
            f"{one.where}: rows {one.start + first} to {one.start + first + n - 1} chose the same experts in every layer, "
            f"{differ}: "
            "a CUDA graph repeated one row (SGLang 12162); capture again without graphs, or with a version that records "
            "inside them"
        )


def _with_weights(rows: Array, one: Captured) -> Array:
    """Rows as they repeat: of a router that always chooses alike, weights differ, and of a row that was copied they do not."""
    if one.weights is None:
        return rows
    bits = np.ascontiguousarray(one.weights, np.float32).view(np.int32).reshape(len(rows), -1)
    return np.concatenate([rows, bits], axis=1)


def _constant(one: Captured, model: Model) -> None:
    """Of top-1 routers: an expert that never changes cannot be told from a plane that was never written."""
    plain = one.experts[..., 0]
    same = (plain == plain[:1]).all(axis=0)
    if one.rows < _FEW or not same.any() or model.experts == 1:
        return
    layers = ", ".join(str(model.routed[i]) for i in np.flatnonzero(same)[:8])
    raise Fault(
        f"{one.where}: layer {layers} chose expert {int(plain[0, int(np.argmax(same))])} for every one of {one.rows} "
        f"tokens; with "
        "top-1 that is how a plane looks that was never written; capture again, or leave it out by --keep-going"
    )


def _nth(step: int) -> str:
    return {2: "second", 3: "third"}.get(step, f"{step}th")


def _spans(rows: Array, most: int = 6) -> str:
    """Row numbers as in "3-5, 9"."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    parts = [f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in np.split(rows, cuts)[:most]]
    return ", ".join(parts) + (" ..." if len(cuts) >= most else "")


__all__ = ["MISSING", "sound"]
