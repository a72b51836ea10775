"""Where a model goes: one device, or spread over several, over memory and the disk, as Accelerate does it.

What people ask for is read here, before anything is loaded; `memory_plan` says what it takes, `spread` where every part goes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...foreign import one_line
from ..guard import read_json

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?b?)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_HOW = 'give bytes by device, such as "0=20GB,cpu=64GB"'

Device = int | str  # a GPU's number; cpu, disk, or another device by its name


@dataclass(frozen=True)
class Placement:
    """`device`: what it begins on. `map`: a strategy, or {module: device}; None: all of it on `device`. `most`: bytes by device
    that it may take. `may_spread`: where it does not fit on `device`, it is spread."""

    device: torch.device
    map: str | dict[str, Device] | None = None
    most: dict[Device, int] | None = None
    may_spread: bool = False

    @property
    def strategy(self) -> str | None:
        """How the map is to be made, if it must be made; None where it was given, or all goes to one device."""
        return self.map if isinstance(self.map, str) else None


def placement(
    device: str = "auto",
    device_map: str | Path | Mapping[str, Any] | None = None,
    max_memory: str | Mapping[Any, Any] | None = None,
) -> Placement:
    """What was asked for. InputError for a device that is not there, a map that is none, sizes that are none, and for options
    that exclude each other."""
    most = None if max_memory is None else memory_of(max_memory)
    if device_map is None:
        if most is not None and device != "auto":
            raise InputError(
                f"max-memory bounds a model that is spread, and all of it shall go to {device}; leave one of them out"
            )
        found = device_of(device)
        return Placement(found, "auto" if most is not None else None, most, may_spread=device == "auto")
    if device != "auto":
        raise InputError(f"a device map says where every part goes, so that device {device} cannot be asked for beside it")
    if isinstance(device_map, str) and device_map in STRATEGIES:
        return Placement(device_of("auto"), device_map, most)
    if most is not None:
        raise InputError("max-memory is for maps that are made (auto, balanced, sequential), not for one that is given")
    whole = _map(dict(device_map) if isinstance(device_map, Mapping) else _read(Path(device_map)), device_map)
    return Placement(main_device(whole), whole)


def main_device(places: Mapping[str, Device]) -> torch.device:
    """Where what lies on the CPU or the disk is run: the first GPU of a map, else the CPU."""
    first = next((place for place in places.values() if place not in ("cpu", "disk")), "cpu")
    return torch.device("cuda", first) if isinstance(first, int) else torch.device(first)


def memory_of(asked: str | Mapping[Any, Any]) -> dict[Device, int]:
    """Bytes by device from "0=20GB,cpu=64GB" or {0: "20GB", "cpu": 64e9}. InputError for anything else."""
    if isinstance(asked, Mapping):
        pairs = [(str(name), str(size)) for name, size in asked.items()]
    else:
        parts = [part.partition("=") for part in asked.split(",")]
        if strange := ["".join(part) for part in parts if not part[1]]:
            raise InputError(f"{strange[0][:80]!r} says no size; {_HOW}")
        pairs = [(name, size) for name, _, size in parts]
    names = [_name(name.strip()) for name, _ in pairs]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"{str(asked)[:80]!r} names no device, or one twice; {_HOW}")
    return {name: bytes_of(size) for name, (_, size) in zip(names, pairs)}


def bytes_of(size: str) -> int:
    """'20GB' as 20,000,000,000 and '20GiB' as 21,474,836,480. InputError for what is no size."""
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise InputError(f"{size[:80]!r} is no size such as 20GB, 512MiB or 1000000; {_HOW}")
    unit = match[2].lower()
    return int(float(match[1]) * (1024 if "i" in unit else 1000) ** _UNITS[unit[:1].strip("ib")])


def _name(name: str) -> Device:
    if name in ("cpu", "disk"):
        return name
    number = re.fullmatch(r"(?:cuda:)?(\d{1,4})", name, re.ASCII)
    if number is None and not re.fullmatch(r"[a-z]{2,12}(?::\d{1,4})?", name, re.ASCII):
        raise InputError(f"{name[:80]!r} is no device: cpu, disk, or the number of a GPU; {_HOW}")
    device_of(f"cuda:{number[1]}" if number else name)
    return int(number[1]) if number else name


def _read(path: Path) -> dict[str, Any]:
    """A map from a file. InputError for a file that is not there, no JSON, or another thing than an object."""
    if not path.is_file():
        raise InputError(
            f"there is no device map {str(path)[:200]!r}: name a JSON file of modules and devices, or one of "
            + ", ".join(STRATEGIES)
        )
    try:
        found = read_json(path)
    except Exception as error:
        raise InputError(f"the device map {error}") from error
    if not isinstance(found, dict):
        raise InputError(f'the device map {path} is a JSON {type(found).__name__}; write {{"module": device, ...}}')
    return found


def _map(found: Mapping[str, Any], origin: object) -> dict[str, Device]:
    where = "the device map" if isinstance(origin, Mapping) else f"the device map {origin}"
    if not found:
        raise InputError(f'{where} is empty; write {{"module": device, ...}}')
    for module, place in found.items():
        if not isinstance(module, str) or isinstance(place, bool) or not isinstance(place, int | str | torch.device):
            raise InputError(
                f"{where} puts {str(module)[:80]!r} on {json.dumps(place, default=str)[:80]}, which is no device: "
                "cpu, disk, or the number of a GPU"
            )
    return {module: _name(str(place)) for module, place in found.items()}


def device_of(device: str) -> torch.device:
    """`auto`: a GPU where there is one. InputError if the device asked for is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"device {device!r} cannot be used here: {one_line(first)}; try cpu") from error
    if found.type == "meta":
        raise InputError("device 'meta' holds no numbers, so nothing can be run there; try cpu")
    return found
