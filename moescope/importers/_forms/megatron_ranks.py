"""Which files of ranks a trace of Megatron has, and how they count layers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .._core.ask import Ask
from .._core.model import Model
from .._core.reading import lines
from .torch_save import read_saved

TRACE = re.compile(r"router_trace_rank(\d+)\.jsonl(\.gz)?")
_ENOUGH = 256  # rows looked at to tell how layers and experts are told


@dataclass
class Rank:
    """One rank's file, and what lies beside it."""

    number: int
    path: Path
    offset: int = 0
    logits: np.ndarray | None = None
    state: dict[Any, Any] = field(default_factory=dict)


def ranks_of(path: Path, ask: Ask) -> list[Rank]:
    """The files of a folder, or the one, that the options want. InputError where they do not say enough."""
    if ask.files > 1:
        raise InputError(
            f"{ask.files} traces were named, and ranks are read side by side: name the folder that holds them (one an import)"
        )
    files = sorted(f for f in path.iterdir() if TRACE.fullmatch(f.name)) if path.is_dir() else [path]
    if not files:
        raise InputError(
            f"{path} holds no router_trace_rank<r>.jsonl; name Megatron's --moe-routing-trace-path, or one file of it"
        )
    ranks = [Rank(int(m[1]) if (m := TRACE.fullmatch(file.name)) else 0, file) for file in files]
    ranks.sort(key=lambda rank: rank.number)
    offsets, wanted, slices = ask.options.get("layer_offsets"), ask.whole("rank"), ask.options.get("slices")
    if wanted is not None:
        ranks = [rank for rank in ranks if rank.number == wanted] or _no_rank(path, wanted, ranks)
    if len(ranks) > 1 and offsets is None and not slices:
        raise InputError(
            f"{path} has traces of {len(ranks)} ranks, whose layers or tokens may be the same, other or slices: say -p "
            f"rank=0 for "
            "one of them, -p layer_offsets=[0,...] for stages of a pipeline, or -p slices=true for sequence parallelism"
        )
    if offsets is not None:
        if (
            not isinstance(offsets, list)
            or len(offsets) != len(ranks)
            or not all(isinstance(n, int) and n >= 0 for n in offsets)
        ):
            raise InputError(f"layer_offsets={offsets} are not {len(ranks)} whole numbers, one for each rank, such as [0,16]")
        for rank, offset in zip(ranks, offsets):
            rank.offset = offset
    for rank in ranks:
        _beside(rank)
    return ranks


def _no_rank(path: Path, wanted: int, ranks: Sequence[Rank]) -> list[Rank]:
    raise InputError(f"{path} has no rank {wanted}: it has {', '.join(str(rank.number) for rank in ranks)}")


def _beside(rank: Rank) -> None:
    logits = rank.path.with_name(f"logits_rank{rank.number}.bin")
    state = rank.path.with_name(f"router_state_rank{rank.number}.pt")
    if logits.is_file() and logits.stat().st_size:
        rank.logits = np.memmap(logits, "u1", "r")
    if state.is_file():
        found = read_saved(state)
        rank.state = found if isinstance(found, dict) else {}


@dataclass
class Look:
    """What the beginning of the files shows."""

    layers: set[int] = field(default_factory=set)
    hook: bool = False
    ascending: bool = True


def look(ranks: Sequence[Rank]) -> Look:
    """Layers (with their offsets), whether logits are pointed at, and whether experts are ascending in every decision."""
    found = Look()
    for rank in ranks:
        rows = 0
        for line in lines(rank.path, lambda n: None):
            layer, ids = line.value.get("layer"), line.value.get("top_indices")
            if not isinstance(layer, int) or not isinstance(ids, list):
                continue
            found.layers.add(layer + rank.offset)
            found.hook = found.hook or "logit_offset" in line.value
            found.ascending = found.ascending and all(
                isinstance(row, list) and row == sorted(row) and len(row) > 1 for row in ids
            )
            rows += len(ids)
            if rows >= _ENOUGH and layer + rank.offset != max(found.layers):
                break
    return found


def first_number(rank: Rank, look: Look, model: Model, ask: Ask) -> int:
    """The number of the first layer in these files: 0 of the hook, 1 of the sink. InputError where that cannot be told."""
    said = ask.options.get("numbering")
    if said is not None:
        if said not in ("hook", "sink"):
            raise InputError(f"numbering={said} is neither hook (layers from 0) nor sink (layers from 1)")
        return int(said == "sink")
    able = [first for first in (0, 1) if {layer - first for layer in look.layers} <= set(model.routed)]
    if look.hook and 0 in able:
        return 0
    if len(able) == 1:
        return able[0]
    if not look.layers:
        raise InputError(f"{rank.path.name} has no record with layer and top_indices: it is no routing trace of Megatron's")
    shown = ", ".join(map(str, sorted(look.layers)[:8]))
    if not able:
        raise InputError(
            f"{rank.path.name} has layers {shown}, and {model.name} has routers in {', '.join(map(str, model.routed[:8]))}: "
            "--model names another model, or the layers of a pipeline stage need -p layer_offsets"
        )
    raise InputError(
        f"whether layers {shown} of {rank.path.name} count from 0 (the hook) or from 1 (the sink) cannot be told: say "
        "-p numbering=hook or -p numbering=sink"
    )
