"""What loading a model will take, before it is loaded: its weights by type, where they go, what is free there.

Sizes come from the model's classes built without any numbers in them (on the meta device), in the type that it will have; of
weights that come quantized and stay so from the headers of their files. Free memory counts the limits of containers and ulimit.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import ModelError
from ...memory import free as free_ram
from ..guard import entries, weight_files
from ..loaded import How
from ..quantized.checkpoints import stays_packed
from ..quantized.ways import bytes_each
from ..skeleton import skeleton
from .placement import Device, Placement
from .spread import checked, disjoint, made, shares

LARGE = 1 << 30  # bytes of weights from which on something is said
_KEPT = 0.9  # of a GPU's free memory: the rest is for what a forward computes


@dataclass(frozen=True)
class Plan:
    """Bytes of weights by type and by device, the largest single one, what is free by device; and the map, if it is spread."""

    name: str
    parameters: int
    weights: dict[str, int]
    places: dict[Device, int]
    largest: int
    free: dict[Device, int]
    map: dict[str, Device] | None = field(default=None, compare=False)

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return sum(self.weights.values())

    @property
    def types(self) -> dict[str, int]:
        """Bytes by type, the largest first; without what is only some norms or buffers in another type."""
        return {name: n for name, n in sorted(self.weights.items(), key=lambda kv: -kv[1]) if n >= self.total / 50}

    def sentence(self) -> str:
        """What it takes, in one line."""
        types = " and ".join(f"{size(n)} in {name}" for name, n in self.types.items())
        where = ", ".join(f"{size(n)} to {said(p)} ({size(self.free.get(p, 0))} free)" for p, n in self.places.items())
        count = f"{self.parameters / 1e9:,.2f} billion" if self.parameters >= 1e8 else f"{self.parameters / 1e6:,.1f} million"
        return f"{self.name} has {count} weights, {types}; {where}"


def size(count: float) -> str:
    """Bytes as people say them: 93.4 GB, 9.6 MB, 1.0 kB."""
    for name, unit in (("GB", 1e9), ("MB", 1e6)):
        if count >= unit / 10:
            return f"{count / unit:,.{2 if count < 10 * unit else 1}f} {name}"
    return f"{max(count, 0) / 1e3:,.1f} kB"


def said(place: Device) -> str:
    """A device by its name."""
    return f"cuda:{place}" if isinstance(place, int) else {"disk": f"the disk ({tempfile.gettempdir()})"}.get(place, place)


def available(most: Mapping[Device, int] | None = None) -> dict[Device, int]:
    """Bytes that may be taken by device: GPUs by number, cpu, disk. `most`: bounds; a GPU that they leave out gets none."""
    found: dict[Device, int] = {n: _gpu_free(n) for n in range(torch.cuda.device_count())}
    found |= {"cpu": free_ram(), "disk": shutil.disk_usage(tempfile.gettempdir()).free}
    if most is None:
        return found
    bounds = {place: most.get(place, 0 if isinstance(place, int) else free) for place, free in found.items()}
    return {place: min(bound, found[place]) for place, bound in bounds.items()}


def _gpu_free(number: int) -> int:
    unused = torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
    return int(torch.cuda.mem_get_info(number)[0]) + unused


def plan(
    name: str,
    model: nn.Module,
    where: Placement,
    free: Mapping[Device, int] | None = None,
    *,
    stored: Mapping[str, tuple[int, int]] | None = None,
    packed: Callable[[str, torch.Tensor], float] | None = None,
) -> Plan:
    """What `model` (a skeleton) takes on `free` bytes by device, and the map where it must be spread.

    `stored`: {type: (weights, bytes)} of a checkpoint that is quantized already, taken for its sizes. `packed`: bytes of a
    weight that will be quantized. ModelError in one sentence where it cannot fit, with what would.
    """
    free = dict(available(where.most) if free is None else free)
    weigh = packed or (lambda _, tensor: float(tensor.nbytes))
    held = {id(t): (n, t) for n, t in [*model.named_parameters(), *model.named_buffers()]}.values()
    types: dict[str, int] = {}
    for path, tensor in held:
        kind = str(tensor.dtype).removeprefix("torch.") if weigh(path, tensor) == tensor.nbytes else "packed form"
        types[kind] = types.get(kind, 0) + round(weigh(path, tensor))
    count = sum(t.numel() for _, t in held)
    if stored is not None:
        types, count = {kind: n for kind, (_, n) in stored.items()}, max(count, sum(n for n, _ in stored.values()))
    largest = max((round(weigh(path, t)) for path, t in held), default=0)
    ready = Plan(name, count, types, {}, largest, free)
    return _placed(ready, model, where, weigh)


def _placed(ready: Plan, model: nn.Module, where: Placement, weigh: Callable[[str, torch.Tensor], float]) -> Plan:
    one: Device = where.device.index or 0 if where.device.type == "cuda" else where.device.type
    if isinstance(where.map, dict):
        given = disjoint(model, checked(model, where.map))
        return _fitting(_with(ready, shares(model, given, weigh, ready.total), given), where)
    room = ready.free.get(one, ready.free["cpu"])
    fits = ready.total + (_beside(ready, where) if one == "cpu" else 0) <= room * (1.0 if one == "cpu" or where.most else _KEPT)
    if where.map is None and (fits or not where.may_spread):
        return _fitting(_with(ready, {one: ready.total}, None), where)
    if where.strategy == "auto" and fits and where.device.type == "cpu":
        return _with(ready, {one: ready.total}, None)
    ratio = ready.total / max(sum(t.nbytes for t in {id(t): t for t in model.parameters()}.values()), 1)
    spread = made(model, where.strategy or "auto", _bounds(ready, where), min(ratio, 1.0))
    return _fitting(_with(ready, shares(model, spread, weigh, ready.total), spread), where)


def _beside(ready: Plan, where: Placement) -> int:
    """Bytes of memory that loading and tracing take beside the weights: to put the largest together, and a part for the rest.

    0 where bounds were given: what may be filled is said by them.
    """
    return 0 if where.most else ready.largest + min(ready.total, LARGE) // 2


def _bounds(ready: Plan, where: Placement) -> dict[Device, int]:
    """What the maker of a map may fill: of what is free, less what is taken beside the weights: twice of that which a model
    in memory needs, since weights on the disk pass through it."""
    kept = 1.0 if where.most else _KEPT
    gpus: dict[Device, int] = {place: int(free * kept) for place, free in ready.free.items() if isinstance(place, int)}
    room = ready.free["cpu"]
    return {**gpus, "cpu": max(0, room - min(2 * _beside(ready, where), room // 2))}


def _with(ready: Plan, places: Mapping[Device, int], spread: dict[str, Device] | None) -> Plan:
    return Plan(ready.name, ready.parameters, ready.weights, dict(places), ready.largest, ready.free, spread)


def _fitting(found: Plan, where: Placement) -> Plan:
    """ModelError if some device has not what its share takes."""
    for place, share in found.places.items():
        room = found.free.get(place, found.free["cpu"])
        beside = _beside(found, where) if place == "cpu" else 0
        need = share + beside
        if need <= room:
            continue
        extra = f" and {size(beside)} beside them" if beside else ""
        raise ModelError(
            f"{found.name} does not fit: {size(share)} of weights ({', '.join(found.types)}) would go to {said(place)}"
            f"{extra}, where {size(room)} are free; {_cure(found, where, place)}"
        )
    return found


def _cure(found: Plan, where: Placement, place: Device) -> str:
    ways = []
    if place == "disk":
        ways.append("set TMPDIR to a folder on a larger disk")
    elif not where.may_spread:
        ways.append("say --device auto, which spreads it over GPUs, memory and the disk, with --max-memory to bound each")
    if {"float32", "float64"} & set(found.types):
        ways.append("--dtype bfloat16")
    return ", or ".join([*ways, "--quantize int8-torchao"])


def planned(name: str, cls: Any, config: Any, folder: Path | str, how: How, method: str | None = None) -> Plan:
    """What loading will take, by the class and the configuration, and by the files of a folder that stay quantized.

    `method`: by which a checkpoint's weights are quantized, if they are.
    """
    model = skeleton(cls, config, how.dtype, how.remote)
    files = weight_files(folder) if isinstance(folder, Path) else []
    if how.dtype == "auto" and getattr(config, "dtype", None) is None and files:
        model = model.to(_first_type(files))
    stored = stored_types(files) if files and stays_packed(method, how.device) else None
    return plan(name, model, how.place, packed=bytes_each(how.quantize, model, how.device), stored=stored)


def _first_type(files: list[Path]) -> torch.dtype:
    """As Transformers takes it where a configuration says nothing: that of the first floating weight."""
    found = (getattr(torch, kind, None) for kind in stored_types(files[:1]))
    return next((kind for kind in found if isinstance(kind, torch.dtype) and kind.is_floating_point), torch.float32)


def stored_types(files: list[Path]) -> dict[str, tuple[int, int]]:
    """{type: (weights, bytes)} by the headers of safetensors files."""
    found: dict[str, tuple[int, int]] = {}
    for file in files:
        for kind, count, taken in entries(file):
            before = found.get(kind, (0, 0))
            found[kind] = before[0] + count, before[1] + taken
    return found
