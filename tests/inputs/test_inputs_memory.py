"""What lies in memory is traced row by row, by the rules of files; a column's name is never a text."""

import bz2
import datetime
import gzip
import json
import math
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import zstandard
from small import ids, mixtral

import moescope
from moescope.errors import InputError
from moescope.inputs import read
from moescope.models.loading import load
from moescope.store.integrity.verify import verify

ROWS = [
    {"text": "the cat sat", "domain": "pets", "stars": 3, "score": 0.5},
    {"text": "law is law", "domain": "law", "stars": 4, "score": 0.25},
    {"text": "", "domain": "law", "stars": 5, "score": 1.5},
    {"text": "the end", "domain": None, "stars": 1, "score": 2.5},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
HF = datasets.Dataset.from_list(ROWS)
FORMS: dict[str, Callable[[], Any]] = {
    "list of dicts": lambda: ROWS,
    "generator of dicts": lambda: (row for row in ROWS),
    "dict of columns": lambda: COLUMNS,
    "dict of arrays": lambda: {name: np.array(cells) for name, cells in COLUMNS.items()},
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas, index": lambda: pd.DataFrame(ROWS, index=[7, 7, 1, 0]),
    "pandas, nullable": lambda: pd.DataFrame(ROWS).convert_dtypes(),
    "pandas, arrow": lambda: pd.DataFrame(ROWS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas, categories": lambda: pd.DataFrame(ROWS).astype({"domain": "category"}),
    "arrow table": lambda: pa.Table.from_pylist(ROWS),
    "arrow batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "data set": lambda: HF,
    "data set, torch": lambda: HF.with_format("torch"),
    "data sets of one split": lambda: datasets.DatasetDict(train=HF),
    "streaming": lambda: HF.to_iterable_dataset(),
    "streaming, unknown": lambda: datasets.IterableDataset.from_generator(lambda: iter(ROWS)),
    "frames of one split": lambda: {"train": pd.DataFrame(ROWS)},
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_rows(form: str) -> None:
    """The same texts and labels in every form, what is missing named; the hash is the same each time."""
    data = read(FORMS[form]())
    found = [(e.row, e.text, dict(e.labels)) for e in data.examples]
    assert found == [
        (0, "the cat sat", {"domain": "pets", "stars": "3"}), (1, "law is law", {"domain": "law", "stars": "4"}),
        (3, "the end", {"stars": "1"}),
    ]  # fmt: skip
    (source,) = {e.source for e in data.examples}
    assert [e.document for e in data.examples] == [f"{source}:{n}" for n in (0, 1, 3)]
    assert data.warnings == (
        f"Rows without text skipped: 1 in {source}.",
        f"Missing labels of 'domain' skipped: 1 in {source}.",
    )
    assert data.sha256 == read(FORMS[form]()).sha256
    assert data.sha256 != read(FORMS[form](), limit=1).sha256


@pytest.mark.parametrize("form", FORMS)
def test_the_text_is_named_or_asked_for(form: str) -> None:
    """Another column by name; and one sentence with the columns where none is `text`."""
    assert [e.text for e in read(FORMS[form](), text_column="domain", label_columns=["stars"]).examples] == [
        "pets",
        "law",
        "law",
    ]
    with pytest.raises(InputError) as caught:
        read(FORMS[form](), text_column="body")
    assert str(caught.value).endswith(
        "has no column 'body' (columns: text, domain, stars, score): name one with reading={\"text_column\": ...}."
    )


@pytest.mark.parametrize("missing", [math.nan, None, pd.NA, pd.NaT, np.nan, np.float32("nan")], ids=repr)
def test_missing_labels_are_left_out_and_said(missing: Any) -> None:
    """NaN is no label, whichever column it is of and however it is written."""
    rows = [{"text": "a", "label": 1, "Kind": "x"}, {"text": "b", "label": missing, "Kind": missing}, {"text": "c", "label": 2}]
    for data in (rows, pd.DataFrame(rows), {n: [r.get(n) for r in rows] for n in rows[0]}):
        for columns in (None, ["label", "Kind"]):
            found = read(data, label_columns=columns)
            assert [dict(e.labels) for e in found.examples] == [{"label": "1", "Kind": "x"}, {}, {"label": "2"}]
            assert found.warnings[0] == f"Missing labels of 'label' skipped: 1 in {found.examples[0].source}."
            assert found.warnings[1].startswith("Missing labels of 'Kind' skipped: ")


def test_missing_labels_of_files(tmp_path: Path) -> None:
    """A file says them too."""
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}\n{"text": "b", "label": 1}\n{"text": "c", "label": null}\n')
    data = read(tmp_path / "a.jsonl", label_columns=["label"])
    assert [dict(e.labels) for e in data.examples] == [{}, {"label": "1"}, {}]
    assert data.warnings == ("Missing labels of 'label' skipped: 2 in a.jsonl.",)


IDS = [[5, 6, 7], [8, 9, 10]]
ID_FORMS: dict[str, Callable[[], Any]] = {
    "lists": lambda: IDS,
    "tuples": lambda: [tuple(row) for row in IDS],
    "generator": lambda: iter(IDS),
    "arrays": lambda: [np.array(row, np.int32) for row in IDS],
    "tensors": lambda: [torch.tensor(row) for row in IDS],
    "array": lambda: np.array(IDS),
    "tensor": lambda: torch.tensor(IDS),
    "encoding": lambda: {
        "input_ids": torch.tensor([[5, 6, 7, 0], [0, 8, 9, 10]]), "attention_mask": torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]),
    },
    "encoded lists": lambda: {"input_ids": IDS, "attention_mask": [[1] * 3] * 2, "token_type_ids": [[0] * 3] * 2},
    "encoded rows": lambda: [{"input_ids": [*row, 0], "attention_mask": [1, 1, 1, 0]} for row in IDS],
    "encoded data set": lambda: datasets.Dataset.from_dict({"input_ids": IDS, "attention_mask": [[1] * 3] * 2}),
    "encoded data set, torch": lambda: datasets.Dataset.from_dict({"input_ids": IDS}).with_format("torch"),
    "frame": lambda: pd.DataFrame({"input_ids": IDS}),
}  # fmt: skip


@pytest.mark.parametrize("form", ID_FORMS)
def test_ids_are_ids(form: str) -> None:
    """Rows of vocabulary ids in every form, without padding."""
    data = read(ID_FORMS[form](), pad_id=0)
    assert [e.input_ids.tolist() for e in data.examples if e.input_ids is not None] == IDS
    assert [e.text for e in data.examples] == [None, None]


@pytest.mark.parametrize("rows", [[[5, 6, 0], [7, 8, 9]], [[0, 5, 6], [7, 8, 9]]], ids=str)
@pytest.mark.parametrize(
    "kind", [list, np.array, torch.tensor, lambda r: {"input_ids": np.array(r)}], ids=["list", "np", "pt", "dict"]
)
def test_padding_that_cannot_be_told_is_asked_for(rows: list[list[int]], kind: Callable[[Any], Any]) -> None:
    """An array whose rows begin or end with the model's padding."""
    with pytest.raises(InputError, match="row 0, begins or ends with 0, the model's padding, and nothing says whether it is"):
        read(kind(rows), pad_id=0)


def test_generators_are_not_exhausted(tmp_path: Path) -> None:
    """Endless texts, rows or ids with `limit` or `max_tokens`: no more are drawn than are traced."""
    drawn = []

    def endless(make: Callable[[int], Any]) -> Iterator[Any]:
        for n in count():
            drawn.append(n)
            yield make(n)

    for number, make in enumerate([lambda n: [5 + n % 9] * 4, lambda n: {"input_ids": [7, 8, 9, 10], "kind": f"k{n}"}]):
        for more, rows in (({"limit": 3}, 3), ({"max_tokens": 10}, 3), ({"limit": 2, "max_tokens": 100}, 2)):
            drawn.clear()
            run = moescope.trace(mixtral(), endless(make), tmp_path / f"{number}.duckdb", **more)
            store = moescope.open(tmp_path / f"{number}.duckdb")
            assert store.rows(f"select sequences, tokens from runs where run = {run}") == [(rows, 4 * rows)]
            assert drawn == list(range(rows))
            assert [check for check in verify(store) if check.broken] == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pandas", "data set", "generator of dicts"])
def test_traced_texts_are_the_rows(tmp_path: Path, form: str) -> None:
    """By a real tokenizer, into a store: the texts, their labels, and a warning in the run."""
    moescope.trace(load("mixtral"), FORMS[form](), tmp_path / "a.duckdb")
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select source_row, text, domain from sequences order by 1") == [
        (0, "the cat sat", "pets"), (1, "law is law", "law"), (3, "the end", None)
    ]  # fmt: skip
    assert "Missing labels of 'domain' skipped: 1" in store.rows("select warnings from runs")[0][0]


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ([], "inputs are neither a path nor rows, but empty: give a path, a list"),
    "no rows": (pd.DataFrame({"text": []}), "DataFrame holds nothing to trace: it is empty."),
    "no columns": (pd.DataFrame(), "DataFrame holds nothing to trace: it is empty."),
    "no dict": ({}, "columns holds nothing to trace: it is empty."),
    "blank": (["", " ", None], "inputs holds nothing to trace: empty texts skipped: 3 in texts."),
    "one row of ids": ([5, 6, 7], "inputs are one row of ids: put it into a list, [ids]"),
    "one tensor": (torch.tensor([5, 6]), "inputs are one row of ids: put it into a list, [ids]"),
    "one row": ({"text": "one text"}, "columns hold lists, one cell a row, but 'text' is str: give one row as [row]"),
    "uneven": ({"text": ["a", "b"], "n": [1]}, "columns are of different lengths (text 2, n 1): make them alike"),
    "a set": ({"a", "b"}, "a set has no order, so a trace of it could not be repeated: give a list"),
    "a number": (7, "inputs are int, which is nothing that is read: give a path, a list"),
    "dates": ([datetime.date(2026, 1, 1)], "inputs hold date values, which are nothing that is read: give a path"),
    "mixed": (["a", {"text": "b"}], "inputs hold str and dict values: give one kind"),
    "mixed ids": ([[5, 6], "b"], "ids, row 1, is str and no row of ids, as those before it: give one kind"),
    "negative": ([[5, -100]], "ids, row 0: -100 is no vocabulary id"),
    "floats": (np.ones((2, 3)), "ids: `input_ids` is (2, 3) float64: give (N, T) integers, none below 0."),
    "splits": (datasets.DatasetDict(a=HF, b=HF), 'columns has the splits a, b: name one with reading={"split": ...}.'),
    "a text": (
        "the cat sat on the mat",
        "There is no file, folder or data set 'the cat sat on the mat': if it is a text, put it into a list, [text].",
    ),
    "a long text": ("word " * 999, "There is no file, folder or data set 'word word"),
    "two words": ("hello world", "There is no file, folder or shipped set 'hello world'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_one_sentence(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read(data)
    assert str(caught.value).startswith(said)
    assert "text], " not in str(caught.value)


def test_reading_has_only_its_options(tmp_path: Path) -> None:
    """An option of `reading` that is none is said, with those that are."""
    with pytest.raises(
        InputError, match="reading has no option 'column': there are text_column, label_columns, split, sentences"
    ):
        moescope.trace(mixtral(), [[5, 6]], tmp_path / "a.duckdb", reading={"column": "text"})
    assert list(tmp_path.iterdir()) == []


def test_ids_of_tensors_are_what_runs(tmp_path: Path) -> None:
    """A tensor of ids: its rows are the sequences."""
    moescope.trace(mixtral(), ids(3, 5), tmp_path / "a.duckdb")
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select list(vocab_id order by position) from tokens group by sequence order by sequence") == [
        (row,) for row in ids(3, 5).tolist()
    ]


JSONL = "".join(json.dumps({"text": row["text"], "domain": row["domain"]}) + "\n" for row in ROWS[:2]).encode()
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}
FILES = {
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".csv": b"text,domain\nthe cat sat,pets\nlaw is law,law\n",
    ".tsv": b"text\tdomain\nthe cat sat\tpets\nlaw is law\tlaw\n",
    ".txt": b"the cat sat\n\nlaw is law\n",
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("ending", FILES)
def test_packed_files(tmp_path: Path, ending: str, packed: str) -> None:
    """As the file inside; also in two pieces, and in a folder, where the domain is its name."""
    pack, content = PACK[packed], FILES[ending]
    (tmp_path / f"a{ending}").write_bytes(content)
    plain = read(tmp_path / f"a{ending}")
    for name, data in (("a", pack(content)), ("b", pack(content[:20]) + pack(content[20:]))):
        path = tmp_path / f"{name}{ending}{packed}"
        path.write_bytes(data)
        found = read(path)
        assert [(e.text, e.labels, e.row) for e in found.examples] == [(e.text, e.labels, e.row) for e in plain.examples]
        assert found.sha256 != plain.sha256
    (tmp_path / f"a{ending}").unlink()
    if ending != ".txt":
        (tmp_path / f"c{ending}{packed}").write_bytes(pack(content.replace(b"domain", b"other")))
        assert {e.labels.get("domain") for e in read(tmp_path).examples if "other" in e.labels} == {"c"}


@pytest.mark.parametrize("packed", PACK)
def test_packed_files_that_are_broken(tmp_path: Path, packed: str) -> None:
    """One sentence."""
    whole = PACK[packed](JSONL * 99)
    for name, data in (("cut", whole[: len(whole) // 2]), ("none", b"no such thing"), ("empty", b"")):
        (tmp_path / f"{name}.jsonl{packed}").write_bytes(data)
        with pytest.raises(InputError, match=r"cannot be unpacked|holds nothing to trace") as caught:
            read(tmp_path / f"{name}.jsonl{packed}")
        assert "\n" not in str(caught.value)
