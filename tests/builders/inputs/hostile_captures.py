"""Captures of every format with something wrong in them, and sound ones of unusual kinds; what they hold is known."""

import base64
import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import numpy as np
from captures import Served

Write = Callable[[Served, Path], Path]


def changed(make: Callable[[Served], list[dict[str, Any]]], change: Callable[[Any, Served], Any]) -> Write:
    """Lines of a form whose first record was changed in place."""

    def write(made: Served, folder: Path) -> Path:
        records = make(made)
        change(records[0], made)
        return captures.lines(folder / "a.jsonl", records)

    return write


def _payload(record: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Where the routed experts of a record lie."""
    for holder in (record.get("meta_info"), record.get("engine_data"), *(record.get("choices") or record.get("outputs") or [])):
        if isinstance(holder, dict) and "routed_experts" in holder:
            return holder, "routed_experts"
        if isinstance(holder, dict) and "sgl_ext" in holder:
            return holder["sgl_ext"], "routed_experts"
    raise AssertionError(record)


def planes(edit: Callable[[Any, Served], Any], pack: Callable[[Any], Any] = captures.raw) -> Callable[[Any, Served], None]:
    """Other planes for the first sequence."""

    def change(record: Any, made: Served) -> None:
        ids = made.planes(made.sequences[0])
        found = edit(ids, made)
        holder, key = _payload(record)
        holder[key] = pack(ids if found is None else found)

    return change


def _set(ids: Any, at: Any, value: Any) -> None:
    ids[at] = value


def field(key: str, value: Any, inside: str | None = None) -> Callable[[Any, Served], None]:
    """One field of the record (or of an object in it) is another."""

    def change(record: Any, made: Served) -> None:
        (record if inside is None else record[inside])[key] = value

    return change


def _dynamo(**said: Any) -> Callable[[Any, Served], None]:
    return lambda record, made: record["engine_data"]["routed_experts"].update(said)


def _text(make: Write, edit: Callable[[str], str]) -> Write:
    def write(made: Served, folder: Path) -> Path:
        path = make(made, folder)
        path.write_text(edit(path.read_text()))
        return path

    return write


def _policylang(change: Callable[[list[dict[str, Any]]], object]) -> Write:
    def write(made: Served, folder: Path) -> Path:
        path = captures.policylang(folder / "a.jsonl", made)
        records = [json.loads(line) for line in path.read_text().splitlines()]
        change(records)
        return captures.lines(path, records)

    return write


def _megatron(change: Callable[[list[dict[str, Any]]], object]) -> Write:
    def write(made: Served, folder: Path) -> Path:
        path = captures.megatron(folder / "trace", made)
        records = [json.loads(line) for line in path.read_text().splitlines()]
        change(records)
        captures.lines(path, records)
        return folder / "trace"

    return write


def _archive(change: Callable[[dict[str, Any]], object]) -> Write:
    def write(made: Served, folder: Path) -> Path:
        with np.load(captures.archive(folder / "a.npz", made)) as there:
            arrays = dict(there)
        change(arrays)
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return write


def _counts(rows: list[list[Any]], names: tuple[str, ...] = ("layer", "expert", "count")) -> Write:
    def write(made: Served, folder: Path) -> Path:
        with (folder / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
        return folder / "a.csv"

    return write


def _recorder(change: Callable[[dict[str, Any]], object]) -> Write:
    def write(made: Served, folder: Path) -> Path:
        import torch

        path = captures.recorder(folder / "a.pt", made)
        found = torch.load(path, weights_only=True)
        change(found)
        torch.save(found, path)
        return path

    return write


def _edit(at: int, **said: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda records: records[at].update(said)


def _twice_the_line(make: Callable[[Served], list[dict[str, Any]]]) -> Write:
    return lambda made, folder: captures.lines(folder / "a.jsonl", [*make(made), make(made)[1]])


_RAW = captures.sglang, captures.sglang_chat, captures.dynamo
HOSTILE: dict[str, tuple[str, Write]] = {
    **{
        f"{kind} {name}": (kind, changed(make, planes(edit)))
        for kind, make in {"sglang": captures.sglang, "sglang chat": captures.sglang_chat}.items()
        for name, edit in {
            "zero rows": lambda ids, made: _set(ids, slice(1, None, 2), 0),
            "a zero layer": lambda ids, made: _set(ids, (slice(None), made.routed[1]), 0),
            "an expert beyond": lambda ids, made: _set(ids, (2, made.routed[0], 1), made.experts),
            "an expert twice": lambda ids, made: _set(ids, (2, made.routed[0], 1), ids[2, made.routed[0], 0]),
            "a negative expert": lambda ids, made: _set(ids, (2, made.routed[0], 1), -7),
            "a row too few": lambda ids, made: ids[1:],
            "two rows too many": lambda ids, made: np.concatenate([ids, ids[:2]]),
            "repeated rows": lambda ids, made: _set(ids, slice(2, None), ids[2]),
            "a layer too few": lambda ids, made: ids[:, :-1],
            "layers and experts swapped": lambda ids, made: ids.transpose(0, 2, 1),
            "bytes swapped": lambda ids, made: ids.byteswap(),
            "nothing captured": lambda ids, made: np.full_like(ids, -1),
            "nothing at all": lambda ids, made: ids[:0],
        }.items()
    },
    "sglang another type": ("sglang",
        changed(captures.sglang, planes(lambda ids, made: None, lambda ids: captures.raw(ids, np.int64)))),
    "sglang a type that lies": ("sglang", changed(captures.sglang, field("routed_experts_dtype", "uint8", "meta_info"))),
    "sglang a type that is none": ("sglang", changed(captures.sglang, field("routed_experts_dtype", "float32", "meta_info"))),
    "sglang more tokens than there are": ("sglang", changed(captures.sglang, field("completion_tokens", 10**6, "meta_info"))),
    "sglang negative tokens": ("sglang", changed(captures.sglang, field("prompt_tokens", -3, "meta_info"))),
    "sglang a start behind the end": ("sglang",
        changed(captures.sglang, field("routed_experts_start_len", 10**5, "meta_info"))),
    "sglang ids that are texts": ("sglang", changed(captures.sglang, field("output_ids", ["a", "b"]))),
    "sglang ids that are huge": ("sglang", changed(captures.sglang, field("output_ids", [2**40, 1]))),
    "sglang a line twice": ("sglang", _twice_the_line(captures.sglang)),
    "vllm a line twice": ("vllm", _twice_the_line(captures.vllm)),
    "vllm lists cut": ("vllm",
        _text(lambda made, folder: captures.lines(folder / "a.jsonl", captures.vllm_021(made)), lambda text: text[:-40])),
    "vllm lists of halves": ("vllm",
        changed(captures.vllm_021, lambda r, made: _set(r["choices"][0]["routed_experts"][0][0], 0, 1.5))),
    "vllm lists of texts": ("vllm",
        changed(captures.vllm_021, lambda r, made: _set(r["choices"][0]["routed_experts"][0][0], 0, "1"))),
    "vllm ragged lists": ("vllm", changed(captures.vllm_021, lambda r, made: r["choices"][0]["routed_experts"][0].pop())),
    "vllm truth values": ("vllm",
        changed(captures.vllm_021, lambda r, made: _set(r["choices"][0]["routed_experts"][0][0], 0, True))),
    "vllm a huge number": ("vllm",
        changed(captures.vllm_021, lambda r, made: _set(r["choices"][0]["routed_experts"][0][0], 0, 2**70))),
    "vllm choices swapped": ("vllm", changed(captures.vllm, lambda r, made: r["choices"][0].update(token_ids=[1]))),
    "dynamo another shape": ("dynamo", changed(captures.dynamo, _dynamo(shape=[1, 2, 3]))),
    "dynamo a shape of texts": ("dynamo", changed(captures.dynamo, _dynamo(shape=["9", "9", "9"]))),
    "dynamo a huge shape": ("dynamo", changed(captures.dynamo, _dynamo(shape=[2**40, 4, 4]))),
    "dynamo a narrower type": ("dynamo", changed(captures.dynamo, _dynamo(dtype="uint8"))),
    "dynamo a start behind": ("dynamo", changed(captures.dynamo, _dynamo(start=5))),
    "dynamo no base64": ("dynamo", changed(captures.dynamo, _dynamo(data="*" * 40))),
    "trtllm a layer too few": ("trtllm",
        changed(captures.trtllm, lambda r, made: [row.pop() for row in r["outputs"][0]["routed_experts"]])),
    "trtllm all layers": ("trtllm", changed(captures.trtllm, lambda r, made: r["outputs"][0].update(
        routed_experts=made.planes(made.sequences[0], 3).tolist()))),
    "policylang half an expert": ("policylang", _policylang(lambda r: _set(r[1]["e"], 0, r[1]["e"][0] + 0.5))),
    "policylang half a token": ("policylang", _policylang(_edit(1, t=0.5))),
    "policylang an expert twice": ("policylang", _policylang(lambda r: _set(r[1]["e"], 0, r[1]["e"][1]))),
    "policylang an expert beyond": ("policylang", _policylang(lambda r: _set(r[1]["e"], 0, 10**6))),
    "policylang fewer experts": ("policylang", _policylang(lambda r: r[1]["e"].pop())),
    "policylang no score": ("policylang", _policylang(lambda r: r[1]["s"].pop())),
    "policylang scores below 0": ("policylang", _policylang(lambda r: _set(r[1]["s"], 0, -2.0))),
    "policylang a decision twice": ("policylang", _policylang(lambda r: r.insert(2, dict(r[1])))),
    "policylang a dense layer": ("policylang", _policylang(_edit(1, l=0))),
    "policylang prompts mixed": ("policylang", _policylang(lambda r: r.append(dict(r[1])))),
    "policylang another header": ("policylang", _policylang(_edit(0, num_experts=8))),
    "policylang token far away": ("policylang", _policylang(_edit(1, t=10**9))),
    "policylang cut": ("policylang",
        _text(lambda made, folder: captures.policylang(folder / "a.jsonl", made), lambda text: text[:-30])),
    "megatron num_tokens": ("megatron", _megatron(_edit(0, num_tokens=99))),
    "megatron half an expert": ("megatron", _megatron(lambda r: _set(r[0]["top_indices"][0], 0, 0.5))),
    "megatron an expert twice": ("megatron", _megatron(lambda r: _set(r[0]["top_indices"][0], 0, r[0]["top_indices"][0][1]))),
    "megatron fewer tokens in a layer": ("megatron",
        _megatron(lambda r: (r[0]["top_indices"].pop(), r[0].update(num_tokens=len(r[0]["top_indices"]))))),
    "megatron an unknown layer": ("megatron", _megatron(_edit(0, layer=77))),
    "megatron no step": ("megatron", _megatron(lambda r: r[0].pop("step"))),
    "megatron ragged": ("megatron", _megatron(lambda r: r[0]["top_indices"][0].pop())),
    "archive no lengths": ("vllm", _archive(lambda a: a.pop("prompt_len_0"))),
    "archive prompt longer than all": ("vllm", _archive(lambda a: a.update(prompt_len_0=10**6))),
    "archive rows of another": ("vllm", _archive(lambda a: a.update(routed_experts_0=a["routed_experts_0"][2:]))),
    "archive floats": ("vllm", _archive(lambda a: a.update(routed_experts_0=a["routed_experts_0"] + 0.5))),
    "archive ids of halves": ("vllm", _archive(lambda a: a.update(token_ids_0=a["token_ids_0"] + 0.5))),
    "archive two axes": ("vllm", _archive(lambda a: a.update(routed_experts_0=a["routed_experts_0"][:, 0]))),
    "recorder expert beyond": ("sglang", _recorder(lambda f: _set(f["records"][0]["topk_ids_of_layer"], (1, 0, 0), 99))),
    "recorder other positions": ("sglang",
        _recorder(lambda f: f["records"][0].update(positions=[0] * len(f["records"][0]["positions"])))),
    "recorder fewer positions": ("sglang", _recorder(lambda f: f["records"][0]["positions"].pop())),
    "recorder lengths": ("sglang", _recorder(lambda f: f["records"][0].update(extend_seq_lens=[1]))),
    "recorder a record lost": ("sglang", _recorder(lambda f: f["records"].pop(1))),
    "counts negative": ("llamacpp", _counts([[1, 2, -5], [1, 3, 6]])),
    "counts beyond": ("llamacpp", _counts([[1, 999, 5]])),
    "counts of a dense layer": ("llamacpp", _counts([[0, 1, 5]])),
    "counts of halves": ("llamacpp", _counts([[1, 1, 0.5]])),
    "counts empty cells": ("llamacpp", _counts([[1, "", 5]])),
    "counts too large": ("llamacpp", _counts([[1, 1, 2**63 - 1], [1, 1, 2**63 - 1]])),
}  # fmt: skip
"""By name: (format, what writes it): each has to be refused, or to give nothing that differs from what is known."""


def packed(how: str) -> Callable[[Path], Path]:
    """A file compressed, under its usual name."""

    def pack(path: Path) -> Path:
        data = path.read_bytes()
        if how == "zst":
            import zstandard

            done = zstandard.ZstdCompressor().compress(data)
        else:
            done = gzip.compress(data) if how == "gz" else bz2.compress(data)
        there = path.with_name(f"{path.name}.{how}")
        there.write_bytes(done)
        path.unlink()
        return there

    return pack


def unicode_ids(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests whose names are of other scripts, with marks and breaks in them."""
    for number, record in enumerate(records):
        record["id"] = f"запрос-{number}-é😀\u2028\"x'"
    return records


def paired(records: list[dict[str, Any]], made: Served) -> list[dict[str, Any]]:
    """Each response beside its request."""
    return [
        {"request": {"prompt_token_ids": one.prompt.tolist(), "labels": 3}, "response": record}
        for one, record in zip(made.sequences, records)
    ]


def emptied(made: Served) -> list[dict[str, Any]]:
    """An answer of one token (no row of its own), and one whose prompt is one token."""
    records = captures.vllm(made)
    for record, cut in zip(records, (1, 2)):
        choice = record["choices"][0]
        prompt = choice["prompt_token_ids"]
        ids = np.load(io.BytesIO(base64.b64decode(choice["routed_experts"])))
        choice["token_ids"] = choice["token_ids"][:cut]
        choice["routed_experts"] = captures.npy(ids[: len(prompt) + cut - 1], ids.dtype)
        record["usage"]["completion_tokens"] = cut
    return records
