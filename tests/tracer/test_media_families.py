"""Pictures, video and sound beside texts, in every family that is proved: each token against an independent recount."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torchvision_beside
from media_families import FAMILIES, PLAIN

import moescope
from moescope.store.integrity.verify import verify

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parents[1] / "programs" / "media_families_run.py"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores and recounts of all families, made by one process in which torchvision is."""
    folder = tmp_path_factory.mktemp("media")
    paths = filter(None, sys.path)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)], env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def rows(store: Any, run: int) -> list[list[tuple[Any, ...]]]:
    """Of every sequence (id, generated, unit, modality, medium, frame, y, x, view) by position."""
    query = """
select t.sequence, t.vocab_id, t.generated, t.unit, max(l.label) filter (kind = 'modality'),
  max(l.label) filter (kind = 'medium'), max(l.label) filter (kind = 'frame'), t.y, t.x, max(l.label) filter (kind = 'view')
from tokens t join sequences s using (sequence) left join token_labels l using (token)
where t.run = ? and stack = 'decoder' group by t.sequence, t.position, t.vocab_id, t.generated, t.unit, t.y, t.x
order by t.sequence, t.position"""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for sequence, *token in store.rows(query, [run]):
        found.setdefault(sequence, []).append(tuple(token))
    return list(found.values())


def expected(ids: list[int], tokens: list[list[Any]]) -> list[tuple[Any, ...]]:
    return [
        (one if unit == "text" else None, False, unit, unit, None if medium is None else f"{unit} {medium}",
         None if frame is None else str(frame), y, x, view)
        for one, (unit, medium, frame, y, x, view) in zip(ids, tokens, strict=True)
    ]  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_what_the_processor_made(family: str, traced: Path) -> None:
    """Modality, which medium, frame, row, column and view; prompts padded beside each other, and before generated tokens."""
    if family not in PLAIN and not torchvision_beside.HOME.is_dir():
        pytest.skip("torchvision is not beside the environment: make lays it there")
    told = json.loads((traced / f"{family}.json").read_text())
    with moescope.open(traced / f"{family}.duckdb") as store:
        for run in sorted({one["run"] for one in told}):
            mine, stored = [one for one in told if one["run"] == run], rows(store, run)
            assert len(stored) == len(mine)
            for one, tokens in zip(mine, stored):
                assert tokens[: len(one["ids"])] == expected(one["ids"], one["tokens"])
                made = tokens[len(one["ids"]) :]
                assert [token[1:] for token in made] == [(True, "text", "text", *[None] * 5)] * max(one["generate"] - 1, 0)
        assert [check for check in verify(store) if check.broken] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_kept(family: str, traced: Path) -> None:
    """Every picture, and a picture for every frame that tokens have."""
    if not (traced / f"{family}.duckdb").exists():
        pytest.skip("torchvision is not beside the environment: make lays it there")
    with moescope.open(traced / f"{family}.duckdb") as store:
        kept = store.rows('select sequence, medium, frame, "view" from pictures order by all')
        there = store.rows("""
select distinct t.sequence, m.label, try_cast(f.label as int), v.label from tokens t
join token_labels m on m.token = t.token and m.kind = 'medium'
left join token_labels f on f.token = t.token and f.kind = 'frame'
left join token_labels v on v.token = t.token and v.kind = 'view' where t.unit <> 'audio' order by all""")
        towers = store.rows("""
select p.sequence, medium, frame, "view" from pictures p join sequences using (sequence) where stack = 'vision'""")
    assert [row for row in kept if row not in towers] == there
    assert kept


def test_a_tower_with_routers_sees_each_picture(traced: Path) -> None:
    """Patches of the picture of row 1 and of the two of row 2, in blocks of two by two; each picture a sequence."""
    if not (traced / "dots3_note.duckdb").exists():
        pytest.skip("torchvision is not beside the environment: make lays it there")
    with moescope.open(traced / "dots3_note.duckdb") as store:
        seen = store.rows(
            "select sequence, source_row, height, width, tokens from sequences where stack = 'vision' and run = 0 order by 1"
        )
        first = store.rows("select y, x from tokens where sequence = ? order by position limit 8", [seen[0][0]])
        labels = store.rows("select count(*) from token_labels join tokens using (token) where unit = 'patch'")
        kept = store.rows("select sequence, height, width from pictures where sequence <= ? order by 1", [seen[-1][0]])
    assert [row[1:] for row in seen] == [(1, 6, 10, 60), (2, 4, 4, 16), (2, 8, 4, 32)]
    assert first == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert labels == [(0,)]
    assert kept == [(seen[0][0], 24, 40), (seen[1][0], 16, 16), (seen[2][0], 32, 20)]
