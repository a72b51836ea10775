"""Run what pages show, and write what came of it: python -m docs.executed [--check] [PAGE ...]

On a page of PAGES, from the top to the bottom, in a folder of its own:

* a block with a title is a file that is written: ```` ```python title="train.py" ````;
* a block `console` holds lines `$ command` and what they print; `moescope` and `python FILE` run in this process;
* a block `python` (not `py`) is run, all of a page in one name space; a block `text` right behind it is what it prints.

A comment `<!-- show 8 -->` before a block keeps the first eight lines of each output. A command that fails stops the run, but
in a block under the comment `<!-- refused -->`, whose last command has to fail. What differs from run to run (seconds,
rates, days) is not compared. `--check` writes nothing and exits 1 where a page says something else than what comes.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = [*sorted(path.relative_to(DOCS.parent).as_posix() for path in DOCS.glob("tutorials/*.md")), "README.md"]
FENCE = re.compile(
    r"(?:^<!-- show (?P<show>\d+) -->\n)?(?:^<!-- (?P<refused>refused) -->\n)?"
    r'^```(?P<kind>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
WIDTH = "110"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
DIFFERS = [
    (re.compile(r"\d[\d.,]* (?:s|ms|MB|KB|kB|tokens/s|decisions/s)\b"), "# s"),
    (re.compile(r"waited \d[\d.]* %"), "waited # %"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?"), "#-#-#"),
]


def same(one: str, other: str) -> bool:
    """Whether two outputs say the same, but for what differs from run to run, and for numbers that are off by a fiftieth.

    Another processor adds in another order, and a decision at the edge may fall the other way.
    """
    mine, theirs = plain(one), plain(other)
    if NUMBER.sub("#", mine) != NUMBER.sub("#", theirs):
        return False
    numbers = zip(NUMBER.findall(mine), NUMBER.findall(theirs), strict=True)
    return all(abs(a - b) <= max(0.02 * abs(b), 0.011) for a, b in ((_value(x), _value(y)) for x, y in numbers))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def executed(text: str) -> str:
    """The page with what its blocks print today; runs in the present folder."""
    names: dict[str, Any] = {"__name__": "__page__"}
    printed: list[str | None] = [None]

    def again(found: re.Match[str]) -> str:
        body, kind, title = found["body"], found["kind"], found["title"]
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(body, "utf-8")
        elif kind == "console":
            body = _session(_commands(body), found["show"], bool(found["refused"]))
        elif kind == "python":
            printed[0] = _shown(_printed(lambda: exec(compile(body, "page", "exec"), names)), found["show"])
            return found[0]
        elif kind == "text" and printed[0] is not None:
            body = printed[0]
        printed[0] = None
        return found[0][: found.start("body") - found.start()] + body + "```"

    return FENCE.sub(again, text)


@contextlib.contextmanager
def stage() -> Iterator[Path]:
    """A folder to run in, with a small model of ours in it as ./my-model."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(DOCS.parent / "moescope" / "models" / "specimens" / "mixtral", Path(folder) / "my-model")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)


def plain(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, instead in DIFFERS:
        text = pattern.sub(instead, text)
    return "\n".join(re.sub(r"[ ━─═]+", " ", line).rstrip() for line in text.splitlines())


def _commands(body: str) -> list[str]:
    return [line[2:] for line in body.replace("\\\n", "").splitlines() if line.startswith("$ ")]


def _shown(output: str, lines: str | None) -> str:
    kept = [line.rstrip() for line in output.strip("\n").splitlines() if not re.match(r"\[\d{4}-", line)]  # another's log
    if lines is not None and len(kept) > int(lines):
        kept = [*kept[: int(lines)], "..."]
    return "".join(f"{line}\n" for line in kept)


def _session(lines: list[str], show: str | None, refused: bool) -> str:
    """The commands with what they print. AssertionError where one fails and should not, or the last one should and does not."""
    body = ""
    for number, line in enumerate(lines, start=1):
        printed, code = _command(line)
        assert bool(code) == (refused and number == len(lines)), f"{line}\nended with {code}:\n{printed}"
        body += f"$ {line}\n{_shown(printed, show)}"
    return body


def _command(line: str) -> tuple[str, int]:
    from click.testing import CliRunner

    from moescope.cli import main

    program, *arguments = shlex.split(line, comments=True)
    if program == "python":
        return _printed(lambda: runpy.run_path(arguments[0], run_name="__main__")), 0
    assert program == "moescope", f"a page can run moescope and python, not {program}"
    os.environ["COLUMNS"] = WIDTH
    done = CliRunner(env={"COLUMNS": WIDTH}).invoke(main, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output, done.exit_code


def _printed(run: Any) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run()
    return out.getvalue()


def main(arguments: list[str]) -> int:
    """Run the pages; what differs is named."""
    check = "--check" in arguments
    stale = 0
    for page in [a for a in arguments if a != "--check"] or PAGES:
        path = DOCS.parent / page
        text = path.read_text("utf-8")
        with stage():
            now = executed(text)
        if same(now, text):
            continue
        stale += 1
        print(f"{page} says something else" if check else f"{page} is written again")
        if not check:
            path.write_text(now, "utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
