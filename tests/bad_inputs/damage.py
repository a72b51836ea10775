"""Rules that make a file wrong: `RULED[name](path, random)` changes it in place, as the random numbers have it."""

import gzip
import io
import json
import os
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

VALUES: list[Any] = [None, True, -1, 0, 3, 10**7, 10**9, 10**30, 1.5, float("nan"), float("inf"), "", "maybe",
                     "x" * 9999, [], {}, [[]], ["a", 1],
                     "\ud800", "\x00", "../../../etc/passwd", {"a": {"b": None}}, "mixtral", "llama", "vmoe",
                     -(2**63), 2**64]  # fmt: skip
ENDINGS = [
    ".txt",
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".parquet",
    ".npz",
    ".conllu",
    ".png",
    ".gif",
    ".safetensors",
    ".bin",
    ".gz",
    "",
]
JSON = {".json", ".jsonl"}


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch UNPICKLED",)


def bits(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 1, 4, 64])):
        if data:
            data[random.randrange(min(len(data), random.choice([64, 1 << 30])))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path: Path, random: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.choice([0, 1, 8, len(data) // 2, len(data) - 1, random.randrange(len(data) + 1)])])


def insert(path: Path, random: Random) -> None:
    data = path.read_bytes()
    place = random.randrange(len(data) + 1)
    stuff = random.choice(
        [b"\0", b"\xff\xfe", b"\n", b"\t\t\t", b'"', b",,,", b"\xed\xa0\x80", b"\x1b[31m", os.urandom(8), b"\x85", b"{" * 9999]
    )
    path.write_bytes(data[:place] + stuff + data[place:])


def overwrite(path: Path, random: Random) -> None:
    """Lengths in binary formats become huge."""
    data = bytearray(path.read_bytes())
    place = random.randrange(max(1, min(len(data), random.choice([16, 64, 1 << 30]))))
    data[place : place + 8] = random.choice([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 1 << 40), b"\x7f" + b"\xff" * 7])
    path.write_bytes(data)


def repeat(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes() * random.choice([2, 3]))


def utf16(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes().decode("latin-1").encode(random.choice(["utf-16", "utf-32", "utf-8"])))


def zipped(path: Path, random: Random) -> None:
    data = gzip.compress(path.read_bytes())
    path.write_bytes(data[: random.choice([len(data), len(data) // 2])])


def deep(path: Path, random: Random) -> None:
    n = random.choice([2000, 100_000])
    path.write_text(random.choice(["[" * n + "]" * n, '{"text": ' * n + "1" + "}" * n, "(" * n]))


def swap_json(path: Path, random: Random) -> None:
    """A value of a JSON document (each line of JSON lines, the header of safetensors) becomes another; or its key goes."""
    if path.suffix == ".safetensors":
        _swap_header(path, random)
        return
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    place = random.randrange(len(lines))
    try:
        lines[place] = json.dumps(_swapped(json.loads(lines[place]), random))
    except ValueError:
        lines[place] += "}"
    path.write_text("\n".join(lines) + "\n")


def _swap_header(path: Path, random: Random) -> None:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.dumps(_swapped(json.loads(data[8 : 8 + size]), random)).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])


def _swapped(tree: Any, random: Random) -> Any:
    if not isinstance(tree, dict | list) or not tree or random.random() < 0.03:
        return random.choice(VALUES)
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = random.choice(list(keys))
    if random.random() < 0.1:
        del tree[key]
    else:
        tree[key] = _swapped(tree[key], random) if random.random() < 0.9 else random.choice(VALUES)
    return tree


def pickled(path: Path, random: Random) -> None:
    stream = io.BytesIO()
    if random.random() < 0.5:
        pickle.dump(Bomb(), stream)
    else:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
            archive.writestr("archive/version", "3")
    path.write_bytes(stream.getvalue())


def arrays(path: Path, random: Random) -> None:
    """An archive of arrays that no model likes."""
    ids = np.arange(1, 13).reshape(3, 4)
    bad: list[dict[str, Any]] = [
        {"input_ids": ids + 10**6}, {"input_ids": ids - 9}, {"input_ids": ids.astype(float)}, {"input_ids": ids[0]},
        {"input_ids": ids[:0]}, {"input_ids": ids.astype(np.uint64) + np.uint64(2**63)},
        {"input_ids": np.array([[Bomb()]], object)},
        {"images": ids}, {"images": ids.astype(np.uint8)[None]}, {"images": np.zeros((8, 0, 4), np.uint8)},
        {"input_ids": ids + 8},
        {"images": np.zeros((8, 8, 8, 7), np.uint8)}, {"input_ids": ids, "labels": ids}, {"input_ids": ids,
        "attention_mask": ids * 0},
        {"input_ids": ids, "labels": np.array([b"\xff", b"a", b"b"])}, {"nothing": ids}, {}, {"input_ids": ids,
        "images": ids},
        {"input_ids": ids, "labels": ids[:, 0], "class_names": np.array(["a"])}, {"input_ids": ids, "labels": ids[:,
        0], "class_names": ids},
    ]  # fmt: skip
    stream = io.BytesIO()
    np.savez(stream, **random.choice(bad))
    path.write_bytes(stream.getvalue())


def promises(path: Path, random: Random) -> None:
    """Headers that promise more than is there, or than any machine holds; bombs that unfold into it."""
    shape = random.choice([(10**6, 10**6), (10**12, 4), (1 << 62, 8), (3, 10**10)])
    if random.random() < 0.3:
        path.write_bytes(image(random.choice([(60_000, 60_000), (20_000, 9_000), (2**31 - 1, 1)])))
        return
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": random.choice(["<i8", "|u1", "|O"]), "fortran_order": False, "shape": shape}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{random.choice(['input_ids', 'images'])}.npy", "w") as file,
    ):
        file.write(head.getvalue())
        for _ in range(random.choice([0, 1, 64])):
            file.write(bytes(1 << 20))


def image(size: tuple[int, int]) -> bytes:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def special(path: Path, random: Random) -> None:
    """Something else than a file in its place."""
    path.unlink()
    kind = random.choice(["fifo", "folder", "loop", "dangling", "zero", "full", "null", "socket", "sparse", "gone", "tty"])
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(here)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind != "gone":
        targets = {
            "loop": path.name,
            "dangling": "nowhere",
            "zero": "/dev/zero",
            "full": "/dev/full",
            "null": "/dev/null",
            "tty": "/dev/tty",
        }
        path.symlink_to(targets[kind])


def renamed(path: Path, random: Random) -> None:
    """Another format's content under this name."""
    near = sorted(p for p in Path.cwd().rglob("*") if p.is_file() and p.suffix in ENDINGS and p.suffix != path.suffix)
    path.write_bytes(random.choice(near).read_bytes())


def odd(path: Path, random: Random) -> None:
    """Text that is well-formed and strange."""
    strange = [
        "\u202e",
        "\U0001f468\u200d\U0001f469",
        "a\u0301" * 50,
        "\ufeff",
        "\u2028",
        "\x85",
        "ﷺ" * 99,
        "\U0010ffff",
        "𝟛",
        "\r",
        "\x0b",
        "\x1b[2J",
    ]
    text = path.read_bytes().decode("latin-1")
    words = random.choice(strange)
    place = random.randrange(len(text) + 1)
    path.write_bytes((text[:place] + words + text[place:]).encode("utf-8"))


RULED: dict[str, Callable[[Path, Random], None]] = {
    f.__name__: f
    for f in (
        bits,
        cut,
        insert,
        overwrite,
        repeat,
        utf16,
        zipped,
        deep,
        swap_json,
        pickled,
        arrays,
        promises,
        special,
        renamed,
        odd,
    )
}
RULES = [*RULED, "swap_json", "swap_json"]
