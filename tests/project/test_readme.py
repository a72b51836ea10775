"""The generated blocks of README and pages are what the code says today, and what tutorials show is what comes."""

import re
from pathlib import Path

import pytest

from docs import executed
from docs.update_blocks import LIVE, PAGES, block, filled, places

SLOW = {"families", "systems"}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else []) for n in LIVE])
def test_block_is_current(name: str) -> None:
    """Run `make fill-docs` when this fails."""
    assert places()[name], "no page has such a block"
    said = LIVE[name]()
    for page in places()[name]:
        assert block(page.read_text("utf-8"), name) == said, f"{page.name}; run: make fill-docs"


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("page", executed.PAGES)
def test_what_a_page_shows_is_what_comes(page: str) -> None:
    """Every command and program of the page, from the top to the bottom; run `make fill-docs` when this fails."""
    text = (ROOT / page).read_text("utf-8")
    with executed.stage():
        now = executed.executed(text)
    assert executed.same(now, text), executed.plain(now)


def test_the_readme_is_one_screen_or_a_few() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    """Commands in any block of any page: the command is there, and has every option that is given."""
    import click

    from moescope.cli import main

    lines = [
        line
        for fence in re.findall(r"```\w*\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        for line in fence.replace("\\\n", "").splitlines()
    ]
    for line in lines:
        said = re.match(r"(?:\$ )?(?:torchrun.*-m )?moescope ([a-z]+)( .*)?$", line.split("   #")[0])
        if said is None:
            continue
        command, words = main.get_command(click.Context(main), said[1]), (said[2] or "").split(" -- ")[0]
        assert command is not None, line
        if isinstance(command, click.Group):  # what is no form of it is a model of the first
            command = command.commands.get(words.split()[0], command.commands["model"])
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        given = re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", re.sub(r"\"[^\"]*\"", "", words))
        assert set(given) <= known, line


def test_running_a_page_writes_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        '```csv title="a/rows.csv"\nx\n1\n```\n```python\nprint(open("a/rows.csv").read())\n```\n\n```text\nold\n```\n'
        '```python title="say.py"\nprint("said")\n```\n<!-- show 1 -->\n'
        "```console\n$ python say.py\nolder\n$ moescope --version\n```\nend\n"
    )
    now = executed.executed(text)
    assert "```text\nx\n1\n```" in now
    assert "$ python say.py\nsaid\n$ moescope --version\nmoescope, version" in now
    assert now.endswith("end\n")
    assert executed.executed(now) == now
    assert executed.same("| 1,000 | 0.50 |", "| 1,010 | 0.51 |")
    assert not executed.same("| 1,000 | 0.50 |", "| 1,000 | 0.55 |")
    assert not executed.same("| 1 |", "| 1 | 2 |")
    assert (
        executed.plain("took 8.5 s on 2026-01-01")
        == executed.plain("took 12 s on 2027-02-02")
        != executed.plain("took 8.5 nats")
    )


def test_a_command_that_fails_stops_the_page_unless_it_is_to_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails = '```console\n$ moescope sql none.duckdb "select 1"\n```\n'
    with pytest.raises(AssertionError, match=r"none.duckdb.*\nended with 1:\nmoescope: "):
        executed.executed(fails)
    assert "moescope: " in executed.executed(f"<!-- refused -->\n{fails}")
    with pytest.raises(AssertionError, match="--version\nended with 0"):
        executed.executed("<!-- refused -->\n```console\n$ moescope --version\n```\n")


def test_filling_is_idempotent_and_leaves_the_rest() -> None:
    """Only what stands between the markers changes."""
    text = "before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter <!-- b:begin --><!-- b:end -->\n"
    once = filled(text, "a", "| new \\1 |")
    assert once == "before\n<!-- a:begin -->\n| new \\1 |\n<!-- a:end -->\nafter <!-- b:begin --><!-- b:end -->\n"
    assert filled(once, "a", "| new \\1 |") == once
    assert block(once, "a") == "| new \\1 |"
    assert block(once, "c") is None
    assert filled(once, "c", "x") == once
