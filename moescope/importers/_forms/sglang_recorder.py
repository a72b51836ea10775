"""Files of SGLang's expert distribution recorder: every forwarded token with its place, or counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._core.ask import Ask, Item, tried
from .._core.captured import Array, Captured, Counts, Fault
from .._core.model import Model
from .torch_save import read_saved

_COLUMNS = 8  # what the recorder keeps of a decision, whatever top-k is
Record = Mapping[str, Any]


def recorded(path: Path, ask: Ask) -> Iterator[Item]:
    """The sequences or counts of a file. InputError for a file of something else."""
    found = read_saved(path)
    model = ask.need("a file of SGLang's recorder")
    records = found.get("records") if isinstance(found, dict) else None
    if isinstance(found, dict) and isinstance(found.get("logical_count"), np.ndarray):
        yield from tried(partial(_logical, path, found["logical_count"], model))
        return
    if not isinstance(records, list) or not records or not all(isinstance(one, dict) for one in records):
        raise Fault(
            f"{path} is no file of SGLang's recorder: it has no records (per_token, per_pass) and no logical_count (stat)"
        )
    kept = _of_first_rank(records, ask)
    if "topk_ids_of_layer" not in kept[0]:
        yield from tried(partial(_physical, path, kept, found.get("last_physical_to_logical_map"), model, ask))
        return
    yield from _sequences(path, kept, found.get("last_physical_to_logical_map"), model, ask)


def _of_first_rank(records: Sequence[Record], ask: Ask) -> list[Record]:
    wanted = ask.whole("rank")
    ranks = sorted({one.get("rank", 0) for one in records})
    chosen = ranks[0] if wanted is None else wanted
    if len(ranks) > 1:
        ask.notes.say(
            f"the file has records of ranks {', '.join(map(str, ranks))}; rank {chosen} was taken (-p rank=N for another)"
        )
    kept = [one for one in records if one.get("rank", 0) == chosen and one.get("gatherer_key", "primary") == "primary"]
    if not kept:
        raise Fault(f"the file has no record of rank {chosen}: it has ranks {', '.join(map(str, ranks))}")
    return kept


def _counts(path: Path, by_layer: Array, model: Model) -> Counts:
    layer, expert = np.nonzero(by_layer)
    if other := sorted(set(layer.tolist()) - set(model.routed)):
        raise Fault(
            f"{path.name} counts experts in layer {other[0]}, which has no router in {model.name}: --model names another"
        )
    return Counts(path.name, layer, expert, by_layer[layer, expert])


def _logical(path: Path, counts: Array, model: Model) -> Counts:
    if counts.ndim != 3 or counts.shape[1] != model.layers or counts.shape[2] != model.experts or counts.dtype.kind not in "iu":
        raise Fault(
            f"{path.name}: logical_count has shape {counts.shape}; of {model.name} it would be (passes, {model.layers}, "
            f"{model.experts})"
        )
    return _counts(path, counts.astype(np.int64).sum(0), model)


def _physical(path: Path, records: Sequence[Record], mapped: Any, model: Model, ask: Ask) -> Counts:
    found: list[Any] = [one.get("global_physical_count") for one in records]
    if not all(isinstance(one, np.ndarray) and one.ndim == 2 and one.shape == found[0].shape for one in found):
        raise Fault(f"{path.name}: records have neither topk_ids_of_layer nor global_physical_count of one shape")
    physical = np.sum([one.astype(np.int64) for one in found], axis=0)
    place = _map(path.name, mapped, model, physical.shape[1], ask)
    by_layer = np.zeros((model.layers, model.experts), np.int64)
    for layer in range(min(model.layers, len(physical))):
        np.add.at(by_layer[layer], place[layer], physical[layer])
    return _counts(path, by_layer, model)


def _map(where: str, mapped: Any, model: Model, slots: int, ask: Ask) -> Array:
    """(layers, slots) logical expert of every physical one."""
    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2:
        if slots > model.experts:
            raise Fault(
                f"{where} has {slots} physical experts for {model.experts} and no physical-to-logical map: which expert a "
                f"copy is "
                "of cannot be known; record again with the map"
            )
        return np.broadcast_to(np.arange(model.experts), (model.layers, model.experts))
    if len(mapped) != model.layers or mapped.shape[1] < slots or mapped.min() < 0 or mapped.max() >= model.experts:
        raise Fault(
            f"{where}: its physical-to-logical map of shape {mapped.shape} does not fit {model.said} in {model.layers} layers"
        )
    if not (mapped == np.arange(mapped.shape[1])[None]).all():
        ask.notes.say(
            "physical experts were made logical by the recorder's last map: where EPLB moved experts while it recorded, "
            "what came "
            "before the move is named wrongly"
        )
    return mapped.astype(np.int64)


@dataclass
class _Open:
    """A sequence of which rows are still coming."""

    start: int
    prompt: int
    next: int
    parts: list[Array] = field(default_factory=list)
    ids: list[Array] = field(default_factory=list)
    decoding: bool = False


def _sequences(path: Path, records: Sequence[Record], mapped: Any, model: Model, ask: Ask) -> Iterator[Item]:
    try:
        rows = [_rows(path, number, one, mapped, model, ask) for number, one in enumerate(records)]
        whole = _put_together(rows)
    except Fault as fault:
        yield fault
        return
    if whole is None:
        ask.notes.lack(
            "sequences",
            "two requests were at one position in a decode, so they cannot be told apart: tokens are rows of their forwards",
        )
        for number, (ids, tokens, _, _) in enumerate(rows):
            where = f"forward {number} of {path.name}"
            yield Captured(where, path.name, number, ids, len(ids), len(ids), tokens=tokens, named=False)
        return
    for number, one in enumerate(whole):
        experts, known = np.concatenate(one.parts), np.concatenate(one.ids)
        tokens = np.concatenate([np.full(one.start, -1), known])
        ask.notes.count("{n} prompt tokens were served from the prefix cache and have no decision", one.start)
        where = f"sequence {number} of {path.name}"
        yield Captured(where, path.name, number, experts, one.prompt, len(tokens), one.start, tokens=tokens)


def _rows(
    path: Path, number: int, one: Record, mapped: Any, model: Model, ask: Ask
) -> tuple[Array, Array, Array, list[int] | None]:
    """(rows, routers, k) experts, ids and positions of a forward, and the lengths of its extends (None: a decode)."""
    where = f"record {number} of {path.name}"
    ids, tokens, positions = one.get("topk_ids_of_layer"), one.get("input_ids"), one.get("positions")
    tokens, positions = (np.asarray(value) if value is not None else None for value in (tokens, positions))
    if not isinstance(ids, np.ndarray) or ids.ndim != 3 or tokens is None or positions is None or ids.dtype.kind not in "iu":
        raise Fault(f"{where} has no topk_ids_of_layer, input_ids and positions of one forward")
    if len(ids) != model.layers or not ids.shape[1] == len(tokens) == len(positions):
        raise Fault(
            f"{where}: topk_ids_of_layer has shape {ids.shape}, with {len(tokens)} ids and {len(positions)} positions, and "
            f"{model.name} has {model.layers} layers"
        )
    if model.top_k > ids.shape[2]:
        raise Fault(f"{where}: the recorder keeps {ids.shape[2]} experts of a decision, and {model.name} chooses {model.top_k}")
    if (ids[:, :, model.top_k :] != -1).any():
        raise Fault(f"{where}: more than {model.top_k} experts in a decision: --model names another model")
    chosen = ids[list(model.routed), :, : model.top_k]
    place = _map(where, mapped, model, int(chosen.max(initial=-1)) + 1, ask)[list(model.routed)]
    logical = np.stack([np.where(own >= 0, table[np.maximum(own, 0)], -1) for own, table in zip(chosen, place)])
    lengths = one.get("extend_seq_lens")
    lengths = None if lengths is None else [int(n) for n in np.asarray(lengths)]
    if lengths is not None and sum(lengths) != len(tokens):
        raise Fault(f"{where}: extend_seq_lens add up to {sum(lengths)}, and the forward has {len(tokens)} tokens")
    return logical.transpose(1, 0, 2), tokens.astype(np.int64), positions.astype(np.int64), lengths


def _put_together(rows: Sequence[tuple[Array, Array, Array, list[int] | None]]) -> list[_Open] | None:
    """Sequences of the forwards, told by their positions; None where two could go on at the same place."""
    done: list[_Open] = []
    live: list[_Open] = []
    for ids, tokens, positions, lengths in rows:
        decode = lengths is None
        cuts = np.cumsum([1] * len(tokens) if lengths is None else lengths)[:-1]
        used = []
        for part, own, places in zip(np.split(ids, cuts), np.split(tokens, cuts), np.split(positions, cuts)):
            if not len(own):
                continue
            begin = int(places[0])
            able = [one for one in live if one.next == begin and (decode or not one.decoding) and one not in used]
            if len(able) > 1 or (decode and not able) or (np.diff(places) != 1).any():
                return None
            one = able[0] if able else _Open(begin, begin, begin)
            if not able:
                done.append(one)
                live.append(one)
            one.parts.append(part)
            one.ids.append(own)
            one.next, one.decoding = begin + len(own), decode
            one.prompt = one.prompt if decode else one.next
            used.append(one)
        live = used if decode else live  # a decode has every request that runs
    return done
