"""What cannot be used is said in one sentence with its file and row; or it is left out and counted, and the rest is read."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import containers
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from moescope.errors import InputError
from moescope.inputs import read, stream

GOOD = [{"text": f"text {n}", "label": "x"} for n in range(6)]


def lines(rows: list[Any]) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def among(bad: Any, place: int = 3) -> list[Any]:
    return [*GOOD[:place], bad, *GOOD[place:]]


ROWS: dict[str, tuple[Any, str]] = {
    "a text of another type": ({"text": 7, "label": "x"}, "a.jsonl, row 3: column 'text' holds int values, not texts"),
    "a text that is an object": ({"text": {"a": 1}}, "a.jsonl, row 3: column 'text' holds dict values, not texts"),
    "a label of another type": (
        {"text": "a", "label": ["x"]}, "a.jsonl, row 3: column 'label' holds list values, but labels in rows before: make"
    ),
    "an offset outside": (
        {"text": "abc", "spans": [{"start": 1, "end": 9, "kind": "k", "value": "v"}]},
        "a.jsonl, row 3, span 0 is of characters 1 to 9, but its text has 3",
    ),
    "no object": ([1, 2], "a.jsonl, line 4 is a JSON list: write one object per line"),
    "no JSON": ('{"text": ', "a.jsonl, line 4 is not JSON (Expecting value): write one object per line"),
    "half a surrogate pair": ('{"text": "a\\ud800"}', "a.jsonl, row 3: column 'text' holds half a surrogate pair"),
    "an id below 0": ({"text": [1, -2]}, "a.jsonl, row 3: -2 is no vocabulary id"),
    "a mask of another length": (
        {"text": [1, 2], "attention_mask": [1]}, "a.jsonl, row 3: `attention_mask` has 1 places but there are 2 ids"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_rows(tmp_path: Path, case: str) -> None:
    """In the middle of a file; a stream has given what is before."""
    bad, said = ROWS[case]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(among(bad)))
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(said)
    found = stream(path)
    assert [next(found.examples).row for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError) as again:
        next(found.examples)
    assert str(again.value) == str(caught.value)
    left_out(path, [0, 1, 2, 4, 5, 6], 1, said)


def left_out(path: Path, rows: list[int], count: int, said: str) -> None:
    """With bad input left out these rows are there, whole or as a stream, and what is not is counted and named."""
    whole, streamed = read(path, skip_bad=True), stream(path, skip_bad=True)
    found = list(streamed.examples)
    assert [e.row for e in found] == rows
    assert found == list(whole.examples)
    for report in (whole.report, streamed.report):
        assert report.left_out.total() == count
        assert f"Bad input left out: {count} in " in report.warnings()[-1]
        assert said in report.warnings()[-1]


def broken(make: bytes, share: float = 0.5) -> bytes:
    return make[: int(len(make) * share)]


def _parquet(path: Path) -> None:
    """A file whose last pages are overwritten."""
    rows = [{"text": f"text {n} {n * n}" * 20} for n in range(900)]
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=300, compression="gzip", use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = parquet.read_metadata(path).row_group(2).column(0).data_page_offset
    data[place + 20 : place + 400] = b"\xff" * 380
    path.write_bytes(data)


MANY = lines([{"text": f"text {n} {hash(str(n)) % 9999991}"} for n in range(9000)])
FILES: dict[str, tuple[Callable[[Path], Any], int | None, str]] = {
    "a.jsonl.gz": (lambda p: p.write_bytes(broken(gzip.compress(MANY))), None, "cannot be unpacked beyond byte"),
    "a.jsonl.zst": (lambda p: p.write_bytes(broken(zstandard.compress(MANY), 0.9)), None, "cannot be unpacked beyond byte"),
    "b.jsonl.zst": (lambda p: p.write_bytes(b"no such thing"), 0, "cannot be unpacked beyond byte 0"),
    "a.tar": (lambda p: p.write_bytes(containers.tar(GOOD)[:4600]), 1, "is not a whole tar file"),
    "b.tar": (lambda p: p.write_bytes(containers.tar(GOOD)[:4096]), 1, "it ends without the mark of its end"),
    "c.tar": (lambda p: p.write_bytes(containers.tar(GOOD)[:4096] + b"x" * 9999), 1, "behind shard/00001.json"),
    "a.tar.gz": (lambda p: p.write_bytes(broken(gzip.compress(containers.tar(GOOD * 99)))), None, "cannot be unpacked"),
    "no.tar": (lambda p: p.write_bytes(b"nothing of the kind" * 99), 0, "no.tar is not a whole tar file"),
    "a.json": (lambda p: p.write_text(json.dumps(GOOD)[:200]), None, "a.json, row "),
    "b.json": (lambda p: p.write_text(json.dumps(GOOD)[:-1]), 6, "b.json, row 5 is not followed by ',' or ']'"),
    "c.json": (lambda p: p.write_text(json.dumps(GOOD) + " {}"), 6, "c.json holds more behind its array of 6 rows"),
    "d.json": (lambda p: p.write_text("[" + json.dumps(GOOD[0]) + ",]"), 1, "d.json, row 1 is not JSON (Expecting value)"),
    "a.parquet": (_parquet, 512, "a.parquet is not a readable parquet table beyond row 511"),
    "b.parquet": (lambda p: p.write_bytes(b"PAR1 and nothing else"), 0, "b.parquet is not a readable parquet table"),
    "a.arrow": (lambda p: p.write_bytes(b"ARROW1 and nothing else"), 0, "a.arrow is not a readable arrow table"),
    "a.csv": (lambda p: p.write_bytes(b'text,n\na,1\nb,2\n"c,3\n'), 2, "a.csv, line 4 is no row of a table (unexpected end"),
    "b.csv": (lambda p: p.write_bytes(b"text,n\na,1\nb\nc,3\n"), 2, "b.csv, row 1 is of another length than the header"),
    "c.csv": (lambda p: p.write_bytes(b"text,n\na,1\nb\xff,2\nc,3\n"), 2,
              "c.csv is not UTF-8 text: byte 0xff at offset 12 (line 3)"),
    "a.jsonl": (lambda p: p.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n{"text": "b"}\n'), 2,
                "a.jsonl is not UTF-8 text: byte 0xff at offset 24 (line 2)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_broken_files(tmp_path: Path, name: str) -> None:
    """What lies before the break is read where that is asked for; beside it in a folder nothing is lost."""
    make, rows, said = FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    if rows == 0:
        for way in (read, stream):
            with pytest.raises(InputError, match=f"{name} holds nothing to trace: bad input left out: 1 in {name}"):
                way(tmp_path / name, skip_bad=True)
    else:
        whole, streamed = read(tmp_path / name, skip_bad=True), list(stream(tmp_path / name, skip_bad=True).examples)
        assert streamed == list(whole.examples)
        assert len(streamed) == rows or rows is None
        assert whole.report.left_out.total() == 1
    (tmp_path / "z.jsonl").write_bytes(lines(GOOD))
    for found in (read(tmp_path, skip_bad=True).examples, list(stream(tmp_path, skip_bad=True).examples)):
        assert [e.text for e in found if e.source == "z.jsonl"] == [row["text"] for row in GOOD]


def test_a_column_of_another_type_in_the_next_shard(tmp_path: Path) -> None:
    for number, cells in enumerate((["a", "b"], [1, 2], ["c", "d"])):
        parquet.write_table(pa.table({"text": cells}), tmp_path / f"s-{number}.parquet")
    with pytest.raises(InputError, match=r"s-1.parquet, row 0: column 'text' holds int values, not texts"):
        read(tmp_path)
    found = stream(tmp_path, skip_bad=True)
    assert [e.text for e in found.examples] == ["a", "b", "c", "d"]
    assert dict(found.report.left_out) == {"s-1.parquet": 2}


def test_a_missing_column_is_said_before_much_is_drawn() -> None:
    drawn = []

    def endless() -> Any:
        while True:
            drawn.append(len(drawn))
            yield {"body": "a", "n": 1}

    with pytest.raises(InputError, match=r"inputs has no column 'text' \(columns: body, n\): name one with"):
        stream(endless())
    assert len(drawn) == 1000


def test_fractions_among_labels_are_counted() -> None:
    found = read([{"text": "a", "n": 1}, {"text": "b", "n": 1.5}, {"text": "c", "n": 2}])
    assert [dict(e.labels) for e in found.examples] == [{"n": "1"}, {}, {"n": "2"}]
    assert found.warnings == ("Fractions instead of labels of 'n' skipped: 1 in inputs.",)
