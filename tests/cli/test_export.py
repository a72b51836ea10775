"""moescope export: pages and pictures of a store as files, and what it refuses before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moescope import show
from moescope.cli import main


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(main, ["export", *args])


REFUSED = [
    (["nothing"], "the dashboard has no page 'nothing'; it has: ablation, compare"),
    (["load", "--run", "9"], "there is no run 9 in .*; it has runs 0, 1"),
    (["load?run=9"], "there is no run 9 in"),
    (["load?run=x"], "run='x' in a link is no whole number"),
    (["http://[::1/load"], "is no page and no link of the dashboard"),
    (["experts", "--run", "0", "--layer", "7"], "run 0 has no layer '7'; name one of"),
    (["experts", "--run", "0", "--layer", "decoder 1", "--expert", "4"], "decoder 1 has no expert 4; its experts are 0 to 3"),
    (["tokens", "--sequence", "999"], "has no sequence 999; its sequences are"),
    (["tokens", "--token", "99999", "--run", "0"], "run 0 of .* has no token 99999"),
    (["runs", "--format", "svg"], "the page runs has no single picture; export it as html, or one of: tokens, load"),
    (["load", "runs", "-o", "a.html"], "--output names one file and 2 pages are asked for"),
    (["compare?run=0&with=5"], "there is no run 5 in"),
    (["load", "--dark"], "--dark is for png, svg and pdf"),
    (["load", "-o", "none/a.html"], "there is no folder"),
]


@pytest.mark.parametrize(("args", "said"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_what_is_not_there_is_refused_and_nothing_is_written(
    recounted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    import re

    done = asked(tmp_path, monkeypatch, str(recounted_store), *args)
    assert (done.exit_code, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert re.search(said, done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "more", "name", "picture"),
    [
        ("tokens", ["--sequence", "7", "--layer", "1"], "run-0-decoder-1-sequence-7-tokens",
         lambda s: show.tokens(s, 7, 1, theme="light")),
        ("load?run=1", [], "run-1-load", lambda s: show.load(s, 1, theme="light")),
        ("http://localhost:8501/experts?run=0&layer=decoder+1", [], "run-0-decoder-1-experts",
         lambda s: show.experts(s, "decoder 1", run=0, theme="light")),
        ("structure", ["--run", "0", "--layer", "decoder 0"], "run-0-decoder-0-structure",
         lambda s: show.flow(s, "decoder 0", run=0, theme="light")),
    ],
)  # fmt: skip
def test_a_picture_is_that_of_show(
    recounted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, more: list[str], name: str, picture: Any
) -> None:
    done = asked(tmp_path, monkeypatch, str(recounted_store), page, "--format", "svg", *more)
    assert (done.exit_code, done.stdout) == (0, f"moescope-a-{name}.svg\n"), done.output
    drawn = (tmp_path / done.stdout.strip()).read_text()
    if "tokens" in page or "experts" in page:
        assert drawn == picture(recounted_store).to_svg()
    assert drawn.startswith("<svg")


@pytest.mark.slow
def test_a_page_is_drawn_by_the_dashboard(recounted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = asked(tmp_path, monkeypatch, str(recounted_store), "load?run=1")
    assert (done.exit_code, done.stdout) == (0, "moescope-a-run-1-load.html\n"), done.output
    page = (tmp_path / "moescope-a-run-1-load.html").read_text()
    assert "<title>Load and entropy · run 1: run 1 · n = " in page
    before = recounted_store.read_bytes()
    over = asked(tmp_path, monkeypatch, str(recounted_store), "load", "-o", str(recounted_store), "--overwrite")
    assert (over.exit_code, recounted_store.read_bytes() == before) == (2, True)
