"""What a GGUF file says before anything is loaded: its architecture, experts, tensors; nothing is believed unchecked."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, ModelError, NotMoEError
from ...foreign import one_line, said

_MAGIC = b"GGUF"
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.S)
_MOST_KEYS, _MOST_TENSORS = 1 << 20, 1 << 20
_ROUTER = re.compile(r"blk\.(\d+)\.ffn_gate_inp\.weight")
_INSTALL = "install it: pip install 'moescope[gguf]'"


@dataclass(frozen=True)
class Header:
    """`facts`: {key: value} of numbers, booleans and strings (lists are left out); `tensors`: {name: its bytes or numbers}, of
    all parts of the file; `kinds`: {name of a type: numbers kept in it}."""

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, Any] = field(repr=False)
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it: olmoe, qwen3moe, llama (Mixtral), ..."""
        return str(self.facts.get("general.architecture", ""))

    def fact(self, name: str, otherwise: Any = None) -> Any:
        """A fact of the architecture: `expert_count` of `olmoe.expert_count`."""
        return self.facts.get(f"{self.architecture}.{name}", otherwise)

    @property
    def routed(self) -> list[int]:
        """Numbers of the layers that have a router."""
        return sorted(int(m[1]) for name in self.tensors if (m := _ROUTER.fullmatch(name)))

    @property
    def parameters(self) -> int:
        """How many numbers its tensors hold."""
        return sum(self.kinds.values())


def is_gguf(path: Path) -> bool:
    """Whether a file is meant to be one: by its first bytes, or its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == _MAGIC or path.suffix.lower() == ".gguf"


def read_header(path: Path) -> Header:
    """Of a file, or of all parts of one that is split. ModelError for what is no whole GGUF, NotMoEError for a dense model."""
    facts: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    kinds: dict[str, int] = {}
    for part in parts_of(path):
        own, found = _read(part)
        facts = {**own, **facts}
        for name, (data, kind, count) in found.items():
            tensors[name] = data
            kinds[kind] = kinds.get(kind, 0) + count
    header = Header(path, facts, tensors, kinds)
    if not header.architecture:
        raise ModelError(f"{path} does not say its architecture (general.architecture): it is no model, or was cut")
    if not header.fact("expert_count") or not header.routed:
        raise NotMoEError(
            f"{path} is a dense model ({header.architecture}, {header.fact('expert_count', 0)} experts): it has no router, so "
            "there is nothing to trace"
        )
    return header


def parts_of(path: Path) -> list[Path]:
    """The files of a model that is split (NAME-00001-of-00003.gguf), or the one. ModelError where one is missing."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    if int(found[2]) != 1:
        raise InputError(
            f"{path} is part {int(found[2])} of {int(found[3])}: name the first, {found[1]}-00001-of-{found[3]}.gguf"
        )
    parts = [path.with_name(f"{found[1]}-{number:05}-of-{found[3]}.gguf") for number in range(1, int(found[3]) + 1)]
    if missing := next((part for part in parts if not part.is_file()), None):
        raise ModelError(
            f"{path} is split into {len(parts)} files, and {missing.name} is missing: put all of them side by side"
        )
    return parts


def _read(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, str, int]]]:
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {said(error)}") from error
    if start[:4] != _MAGIC:
        raise ModelError(f"{path} is no GGUF file: it begins with {start[:4]!r}, not with 'GGUF'; name the model's own file")
    try:
        reader = _reader(path)
    except ImportError as error:
        raise ModelError(f"reading GGUF takes the package gguf, which is not here; {_INSTALL}") from error
    except MemoryError:
        raise
    except Exception as error:  # the reader indexes what is there, and says so in many ways where it is not
        raise ModelError(
            f"{path} is no whole GGUF file ({one_line(str(error), 120) or type(error).__name__}): it was cut, or is damaged; "
            "fetch it again"
        ) from error
    facts = {name: value for name, one in reader.fields.items() if (value := _value(one)) is not None}
    return facts, {t.name: (t.data, t.tensor_type.name, int(t.n_elements)) for t in reader.tensors}


def _value(one: Any) -> Any:
    """A number, a boolean or a text; None for a list."""
    if not one.types or one.types[0].name == "ARRAY":
        return None
    if one.types[0].name == "STRING":
        return bytes(one.parts[-1]).decode("utf-8", "replace")
    return one.parts[one.data[0]].tolist()[0]


def _behind_texts(data: Any, offset: int, count: int) -> int:
    """Where a list of texts ends."""
    if count * 8 > len(data):
        raise ValueError(f"a list of {count:,} texts")
    for _ in range(count):
        offset += 8 + int.from_bytes(bytes(data[offset : offset + 8]), "little")
        if offset > len(data):
            raise ValueError(f"a list of {count:,} texts ends behind the file")
    return offset


def _reader(path: Path) -> Any:
    from gguf import GGUFReader
    from gguf.constants import GGUFValueType

    class Reader(GGUFReader):  # type: ignore[misc]
        """The package's own, which believes every size that it reads and makes an object of every word of a vocabulary."""

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            end = int(offset) + int(count) * np.dtype(dtype).itemsize
            if int(count) < 0 or end > len(self.data):
                raise ValueError(f"it says {end:,} bytes and has {len(self.data):,}")
            return super()._get(int(offset), dtype, count, override_order)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if GGUFValueType(raw_type) != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = GGUFValueType(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
            return self._past(orig_offs + 12, kind, count) - orig_offs, [], [], [GGUFValueType.ARRAY, kind]

        def _past(self, offset: int, kind: Any, count: int) -> int:
            """Where a list ends."""
            if kind == GGUFValueType.ARRAY:
                raise ValueError("a list of lists")
            if kind != GGUFValueType.STRING:
                size = count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
                self._get(offset, np.uint8, size)
                return offset + size
            return _behind_texts(self.data, offset, count)

        def _build_fields(self, offs: int, count: int) -> int:
            if int(count) > _MOST_KEYS or int(self.fields["GGUF.tensor_count"].parts[-1][0]) > _MOST_TENSORS:
                raise ValueError(f"{int(count):,} keys")
            return int(super()._build_fields(offs, count))

    return Reader(path)
