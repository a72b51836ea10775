"""The same rows are the same examples in every container, by path or by object, whole or as a stream."""

import io
import os
import resource
import shutil
import tarfile
from pathlib import Path
from typing import Any

import containers
import datasets
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import moescope
from moescope.cli import main
from moescope.errors import InputError
from moescope.inputs import Dataset, Example, Span, read, stream
from moescope.models.loading import load

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
        ("00", {"score": "0.25", "good": "true", "domain": "law"}),
        ("01", {"score": "1.25", "good": "false", "domain": "pets"}),
        ("02", {"score": "2.25", "good": "false", "domain": "law"}),
        ("03", {"score": "3.25", "good": "true"}),
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


QUERIES = (
    "select source_row, text, domain, tokens from sequences order by all",
    "select source_row, kind, label from sequence_labels join sequences using (sequence) order by all",
    "select source_row, position, kind, label from token_labels join tokens using (token) join sequences using (sequence) "
    "order by all",
    "select source_row, position, layer, rank, expert, weight from assignments a join tokens using (token) join sequences s on "
    "s.sequence = tokens.sequence join routers using (router) order by all",
)


def stored(store: Path, run: int = 0) -> list[Any]:
    """Rows, their labels, those of their tokens, and what was decided for these."""
    with moescope.open(store) as opened:
        assert opened.rows("select count(*) from runs") == [(run + 1,)]
        return [opened.rows(query) for query in QUERIES]


@pytest.fixture(scope="module")
def model() -> Any:
    return load("mixtral")


@pytest.fixture(scope="module")
def expected(model: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    store = tmp_path_factory.mktemp("expected") / "a.duckdb"
    moescope.trace(model, containers.ROWS, store)
    found = stored(store)
    assert [len(rows) > 4 for rows in found] == [True] * 4
    return found


TRACED = ("a.jsonl.zst", "indented.json", "a.csv", "a.parquet", "stream.arrow", "a.tar.gz", "saved")


@pytest.mark.parametrize("name", TRACED)
def test_files_are_stored_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, expected: Any, name: str) -> None:
    """On the command line; every second one as a stream."""
    monkeypatch.setattr("moescope.models.loading.load", lambda *_, **__: model)
    containers.FILES[name](tmp_path / name)
    asked = ["trace", "mixtral", "--data", str(tmp_path / name), "--store", str(tmp_path / "a.duckdb"), "-q"]
    said = CliRunner().invoke(main, asked + ["--stream"] * (TRACED.index(name) % 2))
    assert (said.exit_code, said.output) == (0, "")
    assert stored(tmp_path / "a.duckdb") == expected


@pytest.mark.parametrize("name", ["generator", "pandas", "polars", "arrow reader", "Dataset", "IterableDataset"])
def test_objects_are_stored_alike(tmp_path: Path, model: Any, expected: Any, name: str) -> None:
    moescope.trace(model, containers.OBJECTS[name](), tmp_path / "a.duckdb", stream="Iter" in name or name == "generator")
    assert stored(tmp_path / "a.duckdb") == expected


def test_a_name_of_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded whole; the rows are those of the data set."""
    asked: list[Any] = []

    def load_dataset(*name: Any, **how: Any) -> Any:
        asked.append((name, how))
        return {"train": containers.OBJECTS["IterableDataset"]()}

    monkeypatch.setattr("moescope.inputs.hub._ask_for", lambda repository: None)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    found = stream("some/set:en")
    assert told(found.examples) == WANTED
    assert (found.name, asked) == ("some/set:en", [(("some/set", "en"), {"streaming": True})])


@pytest.mark.parametrize("kind", containers.SHARDS)
def test_many_files_in_turn_are_not_open_at_once(tmp_path: Path, kind: str) -> None:
    """More of them than a process may have open."""
    containers.SHARDS[kind](tmp_path / "few")
    some = sorted((tmp_path / "few").iterdir())
    (tmp_path / "set").mkdir()
    for number in range(100):
        shutil.copy(some[0], tmp_path / f"set/s-{number:03}.{kind}")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, limits[1]))
    try:
        assert [e.text for e in read(tmp_path / "set", limit=101).examples] == [containers.TEXTS[0]] * 100 + containers.TEXTS[
            1:2
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _png(n: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 6), n, np.uint8)).save(out, "png")
    return out.getvalue()


def _shard(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_pictures_alone_are_images(tmp_path: Path) -> None:
    """Of a shard with classes, and of a data set that streams; a broken one is said, or left out."""
    members = [(f"{n:03}.{ending}", content) for n in range(3) for ending, content in (("png", _png(n)), ("cls", b"%d\n" % n))]
    (tmp_path / "a.tar").write_bytes(_shard(members))
    features = datasets.Features({"image": datasets.Image(), "class": datasets.Value("string")})
    kept = datasets.Dataset.from_list([{"image": {"bytes": _png(n)}, "class": str(n)} for n in range(3)], features=features)
    for data in (tmp_path / "a.tar", kept, kept.to_iterable_dataset()):
        for way in (read, stream):
            found = way(data)
            assert found.kind == "image"
            assert [(e.row, dict(e.labels), e.image.tolist() if e.image is not None else None) for e in found.examples] == [
                (n, {"class": str(n)}, [[n] * 6] * 4) for n in range(3)
            ]
    (tmp_path / "b.tar").write_bytes(_shard([*members[:2], ("001.png", b"no picture"), *members[3:]]))
    with pytest.raises(InputError, match=r"b.tar, row 1 is not an image that Pillow can read"):
        read(tmp_path / "b.tar")
    assert [e.row for e in stream(tmp_path / "b.tar", skip_bad=True).examples] == [0, 2]
