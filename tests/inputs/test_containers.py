"""The same rows are the same examples in every container, by path or by object, whole or as a stream."""

from pathlib import Path
from typing import Any

import containers
import pytest

from moescope.inputs import Dataset, Example, Span, read, stream

WANTED = [
    (
        row["text"],
        {"code": row["code"], "stars": str(row["stars"]), "good": str(row["good"]).lower()}
        | ({"domain": row["domain"]} if row["domain"] else {}),
        tuple(Span(*(span[name] for name in ("start", "end", "kind", "value"))) for span in row["spans"]),
    )
    for row in containers.ROWS
]


def told(examples: Any) -> list[tuple[str | None, dict[str, str], tuple[Span, ...]]]:
    return [(e.text, dict(e.labels), e.spans) for e in examples]


def both(data: Any, again: Any, **options: Any) -> tuple[Dataset, list[Example]]:
    """Whole, and what a stream of it gives."""
    whole, streamed = read(data, **options), stream(again, **options)
    found = list(streamed.examples)
    assert (streamed.name, streamed.kind, streamed.report.warnings()) == (whole.name, whole.kind, whole.warnings)
    assert found == list(whole.examples)
    return whole, found


@pytest.mark.parametrize("name", containers.FILES)
def test_files(tmp_path: Path, name: str) -> None:
    containers.FILES[name](tmp_path / name)
    whole, _ = both(tmp_path / name, tmp_path / name)
    assert told(whole.examples) == WANTED
    assert [(e.source, e.row, e.document) for e in whole.examples] == [(name, n, f"{name}:{n}") for n in range(10)]
    assert whole.warnings == (f"Missing labels of 'domain' skipped: 1 in {name}.",)
    chosen, _ = both(tmp_path / name, tmp_path / name, text_column="code", label_columns=["score", "good", "domain"], limit=4)
    assert [(e.text, dict(e.labels)) for e in chosen.examples] == [
        ("00", {"score": "0.25", "good": "true", "domain": "law"}), ("01", {"score": "1.25", "good": "false", "domain": "pets"}),
        ("02", {"score": "2.25", "good": "false", "domain": "law"}), ("03", {"score": "3.25", "good": "true"}),
    ]  # fmt: skip


@pytest.mark.parametrize("name", containers.OBJECTS)
def test_objects(name: str) -> None:
    whole, _ = both(containers.OBJECTS[name](), containers.OBJECTS[name]())
    assert told(whole.examples) == WANTED
    assert [e.row for e in whole.examples] == list(range(10))
    assert len(whole.warnings) == 1


@pytest.mark.parametrize("kind", containers.SHARDS)
def test_shards(tmp_path: Path, kind: str) -> None:
    """As a folder, as a pattern, and by a range in braces: in order, and the shards' names are no label."""
    containers.SHARDS[kind](tmp_path / "set")
    ends = kind if kind != "csv.gz" else "csv.gz"
    for data in (tmp_path / "set", tmp_path / f"s?t/*.{ends}", f"{tmp_path}/set/part-{{00000..00002}}-of-00003.{ends}"):
        whole, _ = both(data, data)
        assert told(whole.examples) == WANTED
        assert [(e.source[:10], e.row) for e in whole.examples] == [
            (f"part-0000{n // 4}", n % 4) for n in range(10)
        ]  # fmt: skip
    assert [e.text for e in both(tmp_path / "set", tmp_path / "set", limit=4)[1]] == [containers.TEXTS[n] for n in (0, 4, 8, 1)]


def test_names_that_say_something_are_domains(tmp_path: Path) -> None:
    for name in ("law-000", "law-001", "code-000", "code-001", "notes"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    assert [e.labels for e in read(tmp_path).examples] == [{"domain": d} for d in ("code", "code", "law", "law", "notes")]
