"""read: plain text, folders, JSON lines, tables; paths, options and messages."""

import hashlib
import json
from pathlib import Path

import pytest

from moescope import discover
from moescope.errors import InputError
from moescope.inputs import Dataset, Example, read, shipped


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(data: str | Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(data, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_text_blocks_are_examples(tmp_path: Path) -> None:
    content = "\ufeffOne fish\r\n  two fish\r\n\r\nRed\n \n\n\nblue\u2028fish\n\n"
    assert read(write(tmp_path / "fish.txt", content)) == Dataset(
        name="fish.txt",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        kind="text",
        examples=(
            Example("fish.txt", 0, "fish.txt:0", "One fish\n  two fish"),
            Example("fish.txt", 1, "fish.txt:1", "Red"),
            Example("fish.txt", 2, "fish.txt:2", "blue\u2028fish"),
        ),
        warnings=("Empty lines skipped: 3 in fish.txt.",),
    )


def test_paragraphs_need_no_warning(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", "a\n\nb\n")).warnings == ()


def test_any_other_ending_is_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "code.py", "x = 1\n")).examples == (Example("code.py", 0, "code.py:0", "x = 1"),)


def folder(tmp_path: Path) -> Path:
    write(tmp_path / "set/law/b.txt", "x\n\ny")
    write(tmp_path / "set/law/a.txt", "w")
    write(tmp_path / "set/code/deep/c.txt", "z")
    write(tmp_path / "set/top.txt", "t")
    write(tmp_path / "set/README.md", "not data")
    write(tmp_path / "set/.hidden/no.txt", "not data")
    return tmp_path / "set"


def test_folder_of_texts_has_domains(tmp_path: Path) -> None:
    assert read(folder(tmp_path)).examples == (
        Example("code/deep/c.txt", 0, "code/deep/c.txt", "z", labels={"domain": "code"}),
        Example("law/a.txt", 0, "law/a.txt", "w", labels={"domain": "law"}),
        Example("law/b.txt", 0, "law/b.txt", "x", labels={"domain": "law"}),
        Example("law/b.txt", 1, "law/b.txt", "y", labels={"domain": "law"}),
        Example("top.txt", 0, "top.txt", "t"),
    )


def test_limit_takes_from_each_domain_in_turn(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert [e.text for e in read(path, limit=4).examples] == ["z", "w", "t", "x"]
    assert read(path, limit=2).sha256 == read(path).sha256


def test_folder_of_tables_takes_domains_from_file_names(tmp_path: Path) -> None:
    write(tmp_path / "set/law.jsonl", '{"text": "a"}')
    write(tmp_path / "set/code.jsonl", '{"text": "b", "domain": "own"}')
    assert read(tmp_path / "set").examples == (
        Example("code.jsonl", 0, "code.jsonl:0", "b", labels={"domain": "own"}),
        Example("law.jsonl", 0, "law.jsonl:0", "a", labels={"domain": "law"}),
    )


def test_split_of_a_folder(tmp_path: Path) -> None:
    assert [e.source for e in read(folder(tmp_path), split="law").examples] == ["a.txt", "b.txt", "b.txt"]
    assert refusal(folder(tmp_path), split="x") == "set has no subfolder for --split x (subfolders: .hidden, code, law)."


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "lang": "en", "n": 3, "ok": True, "score": 0.5, "tags": ["x"], "none": None},
        {"text": "  "},
        {"text": "b", "score": 2.0},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows[:2])) + "\n\n" + json.dumps(rows[2]))
    data = read(path)
    assert data.examples == (
        Example("a.jsonl", 0, "a.jsonl:0", "a", labels={"lang": "en", "n": "3", "ok": "true"}),
        Example("a.jsonl", 2, "a.jsonl:2", "b"),
    )
    assert data.warnings == ("Rows without text skipped: 1 in a.jsonl.", "Empty lines skipped: 1 in a.jsonl.")
    chosen = read(path, text_column="lang", label_columns=["text", "score"])
    assert chosen.examples == (Example("a.jsonl", 0, "a.jsonl:0", "en", labels={"text": "a", "score": "0.5"}),)


@pytest.mark.parametrize(("name", "comma"), [("a.csv", ","), ("a.tsv", "\t")])
def test_csv(tmp_path: Path, name: str, comma: str) -> None:
    path = write(tmp_path / name, f'text{comma}n{comma}x\n007{comma}1{comma}.5\n"a\nb"{comma}2{comma}\n')
    assert read(path).examples == (
        Example(name, 0, f"{name}:0", "007", labels={"n": "1"}),
        Example(name, 1, f"{name}:1", "a\nb", labels={"n": "2"}),
    )


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"body": ["a", None], "genre": ["x", "y"]}), tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet", text_column="body")
    assert data.examples == (Example("a.parquet", 0, "a.parquet:0", "a", labels={"genre": "x"}),)


BAD = {
    "utf16.txt": ("h\u00e9".encode("utf-16"), "utf16.txt is not UTF-8 text: byte 0xff at offset 0 (line 1) is no part "
                  "of a text; save it as UTF-8, or leave it out."),
    "latin.txt": (b"ok\ncaf\xe9\n", "latin.txt is not UTF-8 text: byte 0xe9 at offset 6 (line 2) is no part of a text; "
                  "save it as UTF-8, or leave it out."),
    "nul.bin": (b"a\0", "nul.bin is not UTF-8 text: byte 0x00 at offset 1 (line 1) is no part of a text; save it as "
                "UTF-8, or leave it out."),
    "empty.txt": (b"", "empty.txt holds nothing to trace: it is empty."),
    "blank.txt": (b"\n \n\t\n", "blank.txt holds nothing to trace: empty lines skipped: 3 in blank.txt."),
    "blank.jsonl": (b"\n\n", "blank.jsonl holds nothing to trace: empty lines skipped: 2 in blank.jsonl."),
    "blank2.jsonl": (b'{"text": ""}', "blank2.jsonl holds nothing to trace: rows without text skipped: 1 in "
                     "blank2.jsonl."),
    "comma.jsonl": (b'{"text": "a"}\n{"text": }\n', "comma.jsonl, line 2 is not JSON (Expecting value): write one "
                    "object per line."),
    "list.json": (b'["a"]', "list.json, row 0 is a JSON str: write an array of objects."),
    "column.jsonl": (b'{"body": "a", "n": 1}', "column.jsonl has no column 'text' (columns: body, n): name one with "
                     "--text-column."),
    "number.jsonl": (b'{"text": 1}', "number.jsonl, row 0: column 'text' holds int values, not texts; name a column of "
                     "texts with --text-column."),
    "half.jsonl": (b'{"text": "a\\ud800"}', "half.jsonl, row 0: column 'text' holds half a surrogate pair at character "
                   "1, which is no character; repair the text."),
    "rows.csv": (b"text,n\na,1\nb\n", "rows.csv, row 1 is of another length than the header (1 and 2 cells): repair it."),
    "fake.parquet": (b"PAR?", "fake.parquet is not a readable parquet table ("
                     "Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes)): "
                     "repair it."),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_sentence(tmp_path: Path, name: str) -> None:
    assert refusal(write(tmp_path / name, BAD[name][0])) == BAD[name][1]


def test_bad_options(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", '{"text": "a", "tags": []}')
    assert refusal(rows, label_columns=["lang"]) == (
        "a.jsonl has no column 'lang' (columns: text, tags): name one with --label-column."
    )
    assert refusal(rows, label_columns=["tags"]) == ("a.jsonl, row 0: column 'tags' holds list values, which cannot be labels.")
    assert (
        refusal(rows, split="x")
        == "a.jsonl takes no --split (options that it takes: --chat, --label-column, --prompt, --text-column)."
    )
    assert refusal(rows, limit=0) == "--limit 0 leaves nothing to trace: give 1 or more."


def test_missing_path_names_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moescope.inputs._reading.shipped.home", lambda: tmp_path / "home")
    write(tmp_path / "home/text/a.txt", "a")
    write(tmp_path / "prompts.txt", "a")
    monkeypatch.chdir(tmp_path)
    assert refusal("promts.txt") == (
        "There is no file, folder or shipped set 'promts.txt': did you mean prompts.txt? "
        "shipped sets: text; hub sets are owner/name."
    )
    assert "did you mean text?" in refusal("txet")


def test_a_name_too_long_for_a_file() -> None:
    assert refusal("a" * 300).endswith("cannot be read: File name too long.")


def test_shipped_sets_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moescope.inputs._reading.shipped.home", lambda: tmp_path)
    write(tmp_path / "little/a.txt", "a")
    assert shipped() == {"little": tmp_path / "little"}
    assert read("little").name == "little"
    assert read("little").examples == (Example("a.txt", 0, "a.txt", "a"),)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_set_can_be_read(name: str) -> None:
    assert len(read(name, limit=10)) > 0


def test_empty_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path.name} holds nothing to trace: it is empty."
    write(tmp_path / "a.txt", "")
    assert refusal(tmp_path) == f"{tmp_path.name} holds nothing to trace: empty files skipped: 1 in a.txt."


def test_every_format_has_the_common_shape() -> None:
    for module in discover.modules("inputs").values():
        assert {"SUFFIXES", "TAKES", "accepts", "read_examples"} <= vars(module).keys()
