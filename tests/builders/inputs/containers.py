"""The same ten rows in every container that is read: as a path, or as an object."""

import bz2
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import zstandard
from pyarrow import csv, feather, ipc, parquet

TEXTS = [
    "the cat sat on the mat", "law is law, said the \"judge\"", "two\nlines", "carriage\r\nreturn", " led by a space", "007",
    "True", "na\u00efve \u2028 caf\u00e9 \U0001f600", "3.5", "tab\there",
]  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {
        "text": text,
        "domain": None if n == 3 else ("law", "pets")[n % 2],
        "code": f"0{n}",
        "stars": n,
        "score": n + 0.25,
        "good": n % 3 == 0,
        "spans": [{"start": 0, "end": 2, "kind": "part", "value": f"v{n}"}] if n % 2 else [],
    }
    for n, text in enumerate(TEXTS)
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def flat() -> list[dict[str, Any]]:
    """Rows whose lists are JSON, for containers of plain cells."""
    return [{**row, "spans": json.dumps(row["spans"])} for row in ROWS]


def table() -> pa.Table:
    """As Arrow types them."""
    return pa.Table.from_pylist(ROWS)


def _csv(path: Path, delimiter: str = ",") -> None:
    pd.DataFrame(flat()).to_csv(path, index=False, sep=delimiter)


def _stream(path: Path) -> None:
    with path.open("wb") as file, ipc.new_stream(file, table().schema) as out:
        for batch in table().to_batches(max_chunksize=3):
            out.write_batch(batch)


def _file(path: Path) -> None:
    with path.open("wb") as file, ipc.new_file(file, table().schema) as out:
        out.write_table(table(), max_chunksize=4)


def tar(rows: list[dict[str, Any]], first: int = 0) -> bytes:
    """A shard: the text of each row in a file of its own, the rest as JSON."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for n, row in enumerate(rows, first):
            rest = {name: value for name, value in row.items() if name != "text"}
            for ending, content in (("txt", row["text"]), ("json", json.dumps(rest))):
                member = tarfile.TarInfo(f"shard/{n:05}.{ending}")
                member.size = len(content.encode())
                archive.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def _arrow_csv(path: Path) -> None:
    csv.write_csv(pa.Table.from_pylist(flat()), path)


def _shards(path: Path, write: Callable[[Path, list[dict[str, Any]]], Any], ending: str) -> None:
    path.mkdir()
    for number, first in enumerate((0, 4, 8)):
        write(path / f"part-{number:05}-of-00003{ending}", ROWS[first : first + 4])


def _parquet() -> bytes:
    out = io.BytesIO()
    parquet.write_table(table(), out)
    return out.getvalue()


FILES: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: path.write_bytes(JSONL),
    "a.ndjson": lambda path: path.write_bytes(b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n")),
    "lines.json": lambda path: path.write_bytes(JSONL),
    "array.json": lambda path: path.write_text(json.dumps(ROWS)),
    "indented.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(JSONL)),
    "a.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(JSONL)),
    "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(JSONL)),
    "array.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.csv": _csv,
    "arrow.csv": _arrow_csv,
    "a.csv.zst": lambda path: path.write_bytes(zstandard.compress(pd.DataFrame(flat()).to_csv(index=False).encode())),
    "a.tsv": lambda path: _csv(path, "\t"),
    "a.parquet": lambda path: parquet.write_table(table(), path, row_group_size=3),
    "polars.parquet": lambda path: pl.DataFrame(ROWS).write_parquet(path),
    "a.parquet.gz": lambda path: path.write_bytes(gzip.compress(_parquet())),
    "stream.arrow": _stream,
    "file.arrow": _file,
    "a.feather": lambda path: feather.write_feather(table(), path, compression="zstd"),
    "a.tar": lambda path: path.write_bytes(tar(ROWS)),
    "a.tar.gz": lambda path: path.write_bytes(gzip.compress(tar(ROWS))),
    "a.tgz": lambda path: path.write_bytes(gzip.compress(tar(ROWS))),
    "a.tar.zst": lambda path: path.write_bytes(zstandard.compress(tar(ROWS))),
    "saved": lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path),
}  # fmt: skip

SHARDS: dict[str, Callable[[Path], Any]] = {
    "parquet": lambda path: _shards(path, lambda p, rows: parquet.write_table(pa.Table.from_pylist(rows, table().schema), p),
                                    ".parquet"),
    "jsonl": lambda path: _shards(path, lambda p, rows: p.write_text("".join(json.dumps(r) + "\n" for r in rows)), ".jsonl"),
    "tar": lambda path: _shards(path, lambda p, rows: p.write_bytes(tar(rows)), ".tar"),
    "csv.gz": lambda path: _shards(path, lambda p, rows: p.write_bytes(gzip.compress(pd.DataFrame(
        [{**r, "spans": json.dumps(r["spans"])} for r in rows]).to_csv(index=False).encode())), ".csv.gz"),
}  # fmt: skip


def _generated() -> Iterator[dict[str, Any]]:
    yield from ROWS


OBJECTS: dict[str, Callable[[], Any]] = {
    "list": lambda: ROWS,
    "generator": _generated,
    "columns": lambda: {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas arrow": lambda: pd.DataFrame(ROWS).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda: pl.DataFrame(ROWS),
    "polars lazy": lambda: pl.DataFrame(ROWS).lazy(),
    "arrow": table,
    "arrow batch": lambda: table().to_batches()[0],
    "arrow reader": lambda: table().to_reader(max_chunksize=4),
    "Dataset": lambda: datasets.Dataset.from_list(ROWS),
    "DatasetDict": lambda: datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
    "IterableDataset": lambda: datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=2),
    "IterableDataset, generated": lambda: datasets.IterableDataset.from_generator(_generated),
}
