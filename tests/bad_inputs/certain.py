"""Damage that is named, not drawn: a number set, a file made a pipe, a pickle under another name; and the door to all rules."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from damage import JSON, RULED, Bomb, bits, image, pickled


def damage(name: str, rule: str, seed: int) -> str:
    """Do it to the file, or to a file of the folder, or to the files of a prefix; gives the file's name."""
    random, path = Random(seed), Path(name)
    word, *more = rule.split(":", 1)
    if word in CERTAIN:
        CERTAIN[word](path, more[0] if more else seed)
        return f"{name} {rule}"
    if rule == "swap_json":
        files = [f for f in _files(path) if f.suffix in JSON | {".safetensors"}]
    else:
        files = [f for f in _files(path) if rule not in ("arrays", "promises") or f.suffix in (".npz", ".png", ".gif", ".jpg")]
    if not files:
        files, rule = _files(path), "bits"
    if not files:
        return ""
    chosen = random.choice(files)
    if not chosen.is_file() or chosen.stat().st_size > 1 << 28:  # damaged before
        return ""
    try:
        RULED[rule](chosen, random)
    except (ValueError, OSError, struct.error, RecursionError):  # damaged before, so that its structure is gone
        bits(chosen, random) if chosen.is_file() else None
    return f"{chosen} {rule}"


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return [path] if path.is_file() else sorted(path.parent.glob(f"{path.name}.*"))


def _set(path: Path, what: str) -> None:
    """NAME:NUMBER in a configuration; dots lead into it."""
    name, _, number = what.rpartition(":")
    tree = whole = json.loads(path.read_text())
    *outer, last = name.split(".")
    for key in outer:
        tree = tree[key]
    tree[last] = int(number)
    path.write_text(json.dumps(whole))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _pipe(path: Path, _: object) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path, _: object) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def _archive(path: Path, shape: tuple[int, ...], megabytes: int) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("input_ids.npy", "w", force_zip64=True) as file,
    ):
        file.write(head.getvalue())
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def _indexed(path: Path) -> Path:
    """The first file that the index in its folder names."""
    index = path.parent / "model.safetensors.index.json"
    return path.parent / sorted(set(json.loads(index.read_text())["weight_map"].values()))[0]


def _names(path: Path, weights: str) -> None:
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], weights)
    path.write_text(json.dumps(index))


def _as_bin(path: Path, _: object) -> None:
    """The file becomes a pickle called w.bin, and the index says so."""
    file = _indexed(path)
    file.unlink()
    path.with_name("w.bin").write_bytes(pickle.dumps(Bomb()))
    index = path.parent / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(file.name, "w.bin"))


def _pickle(path: Path, archive: int) -> None:
    file = _indexed(path) if path.name == "INDEXED" else path
    for seed in range(99):
        pickled(file, Random(seed))
        if zipfile.is_zipfile(file) == bool(archive):
            return


CERTAIN: dict[str, Callable[[Path, Any], None]] = {
    "set": _set,
    "fifo": _pipe,
    "sparse": _sparse,
    "names": _names,
    "as w.bin": _as_bin,
    "pickle": _pickle,
    "promise": lambda path, _: _archive(path, (10**12, 4), 1),
    "beyond": lambda path, _: np.savez(path, input_ids=np.full((2, 3), 20)),
    "pixels": lambda path, _: _write(path, image((60_000, 60_000))),
    "nested": lambda path, _: _write(path, b'{"text": ' * 100_000 + b"1" + b"}" * 100_000),
}
