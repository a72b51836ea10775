"""Traces of Megatron's router: files of ranks side by side, forward by forward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._core.ask import Ask, Item, tried
from .._core.captured import Array, Captured, Fault
from .._core.model import Model
from .._core.payload import lists
from .._core.reading import Line, lines
from .megatron_ranks import Rank, first_number, look, ranks_of
from .torch_save import bfloat16


@dataclass
class _Step:
    """One forward of one rank: {layer: experts}, {layer: logits}."""

    step: int
    where: str
    experts: dict[int, Array] = field(default_factory=dict)
    logits: dict[int, Array] = field(default_factory=dict)


def traced(path: Path, ask: Ask) -> Iterator[Item]:
    """Every forward. InputError where ranks, layers or options do not fit each other."""
    model = ask.need("a trace of Megatron")
    ranks = ranks_of(path, ask)
    shown = look(ranks)
    first = first_number(ranks[0], shown, model, ask)
    if shown.ascending:
        ask.notes.say("experts of every decision are ascending: the trace was made of a map of booleans, which has no order")
    if not all(_plain(rank.state) for rank in ranks):
        ask.notes.say(
            "the router's state beside the trace has a bias or another score than softmax: weights were not recomputed"
        )
        model = replace(model, normalized=None)
    ask.notes.lack("sequences", "the trace names no token, so there are no sequences, and tokens are rows of their forwards")
    steps = [_steps(rank, model, first, ask) for rank in ranks]
    for number, together in enumerate(_side_by_side(steps)):
        yield from tried(partial(_captured, path, number, together, model, ask, False if shown.ascending else None))


def _plain(state: dict[Any, Any]) -> bool:
    """Whether the routers whose state lies beside the trace weigh by a softmax alone."""
    routers = [own for own in state.values() if isinstance(own, dict)]
    return all(own.get("score_function", "softmax") == "softmax" and own.get("expert_bias") is None for own in routers)


def _steps(rank: Rank, model: Model, first: int, ask: Ask) -> Iterator[_Step | Fault]:
    held: _Step | None = None
    for line in lines(rank.path, ask.step):
        try:
            record = _record(line, rank, first, model, ask)
        except Fault as fault:
            yield fault
            continue
        if record is None:
            continue
        step, layer, ids, logits = record
        if held is None or step != held.step or layer in held.experts:
            if held is not None:
                yield held
            held = _Step(step, f"step {step} of {rank.path.name}")
        held.experts[layer] = ids
        if logits is not None:
            held.logits[layer] = logits
    if held is not None:
        yield held


def _record(line: Line, rank: Rank, first: int, model: Model, ask: Ask) -> tuple[int, int, Array, Array | None] | None:
    if line.fault is not None:
        raise line.fault
    value = line.value
    if value.get("mtp_idx") is not None or value.get("block", "decoder") != "decoder":
        ask.notes.count("{n} records of multi-token prediction or of other blocks than the decoder were left out")
        return None
    step, layer = value.get("step"), value.get("layer")
    if not isinstance(step, int) or not isinstance(layer, int):
        raise Fault(f"{line.where} has no step and layer: it is no record of Megatron's routing trace")
    layer = layer - first + rank.offset
    where = f"{line.where}: top_indices"
    ids = lists(value.get("top_indices"), where)
    if ids.size and (ids.ndim != 2 or len(ids) != value.get("num_tokens", len(ids))):
        raise Fault(f"{where} have shape {ids.shape}, and num_tokens is {value.get('num_tokens')}: the record was cut")
    if layer not in model.routed:
        raise Fault(f"{line.where}: layer {layer} has no router in {model.name}")
    return step, layer, ids, _logits(value, rank, len(ids), model, line)


def _logits(value: dict[str, Any], rank: Rank, tokens: int, model: Model, line: Line) -> Array | None:
    if rank.logits is None or "logit_offset" not in value:
        return None
    offset, size, shape = value["logit_offset"], value.get("logit_bytes"), value.get("logit_shape")
    if shape != [tokens, model.experts] or not isinstance(offset, int) or size != 2 * tokens * model.experts:
        raise Fault(
            f"{line.where}: logits of shape {shape} in {size} bytes, where ({tokens}, {model.experts}) in bfloat16 is expected"
        )
    if offset < 0 or offset + size > len(rank.logits):
        raise Fault(
            f"{line.where}: its logits end at byte {offset + size:,}, and the file beside it has {len(rank.logits):,}: it "
            f"was cut"
        )
    return bfloat16(np.frombuffer(rank.logits[offset : offset + size].tobytes(), "<u2")).reshape(shape)


def _side_by_side(steps: Sequence[Iterator[_Step | Fault]]) -> Iterator[list[_Step] | Fault]:
    """Forwards of all ranks together."""
    while True:
        row = [next(flow, None) for flow in steps]
        if all(one is None for one in row):
            return
        if fault := next((one for one in row if isinstance(one, Fault)), None):
            yield fault
            continue
        there = [one for one in row if isinstance(one, _Step)]
        if len(there) < len(row) or len({one.step for one in there}) > 1:
            yield Fault(
                f"{there[0].where} has no partner in the trace of another rank: the traces are not of one run, or were cut"
            )
            continue
        yield there


def _captured(
    path: Path, number: int, together: list[_Step] | Fault, model: Model, ask: Ask, by_weight: bool | None
) -> Captured:
    if isinstance(together, Fault):
        raise together
    slices = bool(ask.options.get("slices"))
    parts = [_stacked(one, model, ask) for one in (together if slices else [_merged(together)])]
    experts, heavy = np.concatenate([ids for ids, _ in parts]), [w for _, w in parts if w is not None]
    weights = np.concatenate(heavy) if len(heavy) == len(parts) else None
    rows = len(experts)
    return Captured(
        together[0].where, path.name, number, experts, rows, rows, weights=weights, by_weight=by_weight, named=False
    )


def _merged(steps: Sequence[_Step]) -> _Step:
    whole = _Step(steps[0].step, steps[0].where)
    for one in steps:
        if both := whole.experts.keys() & one.experts.keys():
            raise Fault(
                f"{one.where} has layer {min(both)}, which another rank has too: the ranks are no stages of a pipeline, or "
                "-p layer_offsets are not theirs"
            )
        whole.experts |= one.experts
        whole.logits |= one.logits
    return whole


def _stacked(one: _Step, model: Model, ask: Ask) -> tuple[Array, Array | None]:
    """(tokens, routers, k) experts of a forward, -1 of layers that lack; and recomputed weights, where there are logits."""
    sizes = {len(ids) for ids in one.experts.values()}
    if len(sizes) != 1:
        raise Fault(
            f"{one.where}: its layers have {sorted(sizes)} tokens: records of several forwards are mixed, or some were cut"
        )
    widths = {ids.shape[1] for ids in one.experts.values() if ids.ndim == 2}
    if widths - {model.top_k}:
        raise Fault(f"{one.where}: {sorted(widths)} experts per decision, and {model.name} chooses {model.top_k}")
    (tokens,) = sizes
    experts = np.full((tokens, len(model.routed), model.top_k), -1, np.int32)
    for place, layer in enumerate(model.routed):
        if layer in one.experts and tokens:
            experts[:, place] = one.experts[layer]
    gone = len(model.routed) - len(one.experts)
    ask.notes.count(
        "{n} records of single layers are missing (Megatron leaves a record out where capacity dropped tokens)", gone
    )
    if one.logits.keys() != one.experts.keys() or model.normalized is None:
        return experts, None
    return experts, _weights(experts, one, model, ask)


def _weights(experts: Array, one: _Step, model: Model, ask: Ask) -> Array | None:
    """Softmax of logits that were kept in bfloat16, at the experts that ran."""
    weights = np.full(experts.shape, np.nan, np.float32)
    wrong = 0
    for place, layer in enumerate(model.routed):
        if layer in one.logits and len(experts):
            logits, ids = one.logits[layer].astype(np.float64), experts[:, place].astype(np.int64)
            own = np.take_along_axis(logits, ids.clip(0, model.experts - 1), -1)
            wrong += int((own.min(-1) < -np.partition(-logits, model.top_k - 1, -1)[:, model.top_k - 1]).sum())
            heavy = np.exp(own - logits.max(-1, keepdims=True))
            whole = heavy.sum(-1) if model.normalized else np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)
            weights[:, place] = heavy / whole[:, None]
    ask.notes.say("routing weights are recomputed: the softmax of logits that Megatron kept in bfloat16")
    ask.notes.count("{n} decisions chose other experts than the largest of the kept logits (bfloat16, bias or groups)", wrong)
    return weights
