"""Whatever a library raises, wherever standard output leads, whenever Ctrl-C comes: one sentence and an exit code."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import duckdb
import handmade
import pytest
from click.testing import CliRunner

from moescope.cli import main
from moescope.cli._support.boundary import INTERRUPTED, UNREAD
from moescope.errors import InputError, StoreError
from moescope.foreign import doing, one_line, said


class Panic(BaseException):
    """As Rust code raises it: no Exception."""


def recursion() -> None:
    recursion()


def os_error(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "corpus.jsonl")

    return fail


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


WHERE = " (moescope --debug shows where)"
# what a library does; exit code; the sentence
RAISED: dict[str, tuple[Callable[[], Any], int, str]] = {
    "refused": (raising(InputError("no such thing; name another")), 2, "no such thing; name another"),
    "a store": (raising(StoreError("two\nlines\x1b[31m")), 1, "two lines\\x1b[31m"),
    "value": (raising(ValueError("bad value")), 1, f"ValueError: bad value{WHERE}"),
    "no word": (raising(AssertionError()), 1, f"AssertionError, without a word{WHERE}"),
    "key": (raising(KeyError("hidden_size")), 1, f"KeyError: 'hidden_size'{WHERE}"),
    "memory": (raising(MemoryError()), 1, "there is not enough memory; give less at once"),
    "recursion": (recursion, 1, f"something is nested too deeply to be read{WHERE}"),
    "decode": (lambda: b"a\xff".decode(), 1, f"byte 0xff at offset 1 is not utf-8 text{WHERE}"),
    "encode": (lambda: "\udcff".encode(), 1, f"the text holds '\\udcff', which utf-8 cannot hold{WHERE}"),
    "panic": (raising(Panic("called unwrap on None")), 1, f"Panic: called unwrap on None{WHERE}"),
    "group": (raising(ExceptionGroup("several", [ValueError("a")])), 1, f"ExceptionGroup: several (1 sub-exception){WHERE}"),
    "end of file": (raising(EOFError("no data left")), 1, f"EOFError: no data left{WHERE}"),
    "stop": (raising(StopIteration()), 1, f"StopIteration, without a word{WHERE}"),
    "words": (raising(SystemExit("goodbye")), 1, "goodbye"),
    "DuckDB": (raising(duckdb.InternalException("odd")), 1, f"InternalException: odd{WHERE}"),
    "full": (os_error(errno.ENOSPC), 1, "corpus.jsonl: the disk is full; make room"),
    "folder": (os_error(errno.EISDIR), 1, "corpus.jsonl: it is a folder; name a file"),
    "denied": (os_error(errno.EACCES), 1, "corpus.jsonl: permission denied; check its owner and mode"),
    "circle": (os_error(errno.ELOOP), 1, "corpus.jsonl: its symbolic links lead in a circle"),
    "long name": (os_error(errno.ENAMETOOLONG), 1, "corpus.jsonl: the name is too long for the file system"),
    "broken disk": (os_error(errno.EIO), 1, "corpus.jsonl: input/output error"),
    "Ctrl-C": (raising(KeyboardInterrupt()), INTERRUPTED, "interrupted"),
    "click's Ctrl-C": (raising(click.Abort()), INTERRUPTED, "interrupted"),
}


def planted(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """A command `planted` that does this."""
    command = click.Command("planted", callback=run)
    monkeypatch.setattr("moescope.cli.modules", lambda _: {"planted": SimpleNamespace(command=command)})


@pytest.mark.parametrize("name", RAISED)
def test_one_sentence_for_whatever_is_raised(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run, code, sentence = RAISED[name]
    planted(monkeypatch, run)
    done = CliRunner().invoke(main, ["planted"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", f"moescope: {sentence}\n")
    with doing("reading corpus.jsonl"):
        pass


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    done = CliRunner().invoke(main, ["planted"])
    assert (done.exit_code, done.output) == (UNREAD, "")


@pytest.mark.parametrize("arguments", [["--debug", "planted"], ["planted"]])
def test_the_traceback_when_asked_for(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    planted(monkeypatch, raising(ValueError("bad value")))
    if len(arguments) == 1:
        monkeypatch.setenv("MOESCOPE_DEBUG", "1")
    said = CliRunner().invoke(main, arguments).stderr
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith(f"ValueError: bad value\nmoescope: ValueError: bad value{WHERE}\n")


NOISY = """
import logging, os, sys, warnings
from types import SimpleNamespace
import click
from moescope import cli
from moescope.errors import InputError
def noisy():
    warnings.warn("old")
    logging.getLogger("library").error("oh")
    os.write(2, b"thread panicked at src/lib.rs\\n")
    click.echo("moescope's own", err=True)
    raise InputError("refused")
cli.modules = lambda _: {"planted": SimpleNamespace(command=click.Command("planted", callback=noisy))}
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(("arguments", "lines"), [(["planted"], 2), (["--debug", "planted"], 13)])
def test_libraries_are_silent_unless_asked_for(arguments: list[str], lines: int) -> None:
    done = subprocess.run([sys.executable, "-c", NOISY, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("moescope: refused\n")
    assert ("panicked" in done.stderr, "UserWarning: old" in done.stderr) == (lines > 2, lines > 2)
    assert lines > 2 or done.stderr == "moescope's own\nmoescope: refused\n"


def test_the_innermost_says_what_was_being_done() -> None:
    with pytest.raises(InputError) as caught, doing("loading model", InputError), doing("reading config.json"):
        raise KeyError("model_type")
    assert str(caught.value) == "reading config.json failed: KeyError: 'model_type'"
    with pytest.raises(StoreError), doing("reading", InputError):
        raise StoreError("as it is")
    with pytest.raises(KeyboardInterrupt), doing("reading", InputError):
        raise KeyboardInterrupt


def test_a_sentence_is_one_line_and_no_book() -> None:
    assert one_line("a\r\n  b\x00\u202ec" + "d" * 999, 12) == "a b\\x00\u202ecddd …"
    assert said(OSError("no number")) == "OSError: no number"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boundary") / "run.duckdb"
    handmade.written(path)
    return path


def shell(line: str, **settings: str) -> tuple[int, str, str]:
    """A line of bash with MOESCOPE for the program; exit code, standard output, standard error."""
    program = f"{sys.executable} -m moescope.cli"
    done = subprocess.run(
        ["bash", "-c", line.replace("MOESCOPE", program)], capture_output=True, timeout=200, env=os.environ | settings
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


MANY = "select i, repeat('x', 100) as x from range(20000) t(i)"
SHELL = {
    "head": (f'MOESCOPE sql STORE "{MANY}" --format csv | head -1', (0, "i,x\n", "")),
    "head of help": ("MOESCOPE --help | true; echo ${PIPESTATUS[0]}", None),
    "full": (f'MOESCOPE sql STORE "{MANY}" > /dev/full', (1, "", "moescope: the disk is full; make room\n")),
    "full and small": ("MOESCOPE info STORE > /dev/full", (1, "", "moescope: the disk is full; make room\n")),
    "closed": ("MOESCOPE info STORE >&-", (0, "", "")),
    "all closed": ("MOESCOPE info STORE >&- 2>&- <&-", (0, "", "")),
    "refusal unheard": ("MOESCOPE info nothing.duckdb 2>&-", (1, "", "")),
    "refusal to a full disk": ("MOESCOPE info nothing.duckdb 2>/dev/full", (1, "", "")),
    "group option": ("MOESCOPE --nonsense", (2, "", "moescope: No such option '--nonsense'; see moescope --help\n")),
    "no command": ("MOESCOPE nonsense", (2, "", "moescope: No such command 'nonsense'; see moescope --help\n")),
    "small memory": ('ulimit -v 600000; MOESCOPE sql STORE "select list(i) from range(99999999) t(i)"', None),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELL)
def test_wherever_output_leads(store: Path, name: str) -> None:
    before = store.read_bytes()
    line, expected = SHELL[name]
    code, out, err = shell(line.replace("STORE", str(store)))
    if expected is not None:
        assert (code, out, err.replace(" (Possible", "; (Possible")) == expected
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert store.read_bytes() == before


def test_text_that_the_terminal_cannot_show(store: Path) -> None:
    line = f"""MOESCOPE sql {store} "select 'ć' as c" """
    assert shell(line, PYTHONIOENCODING="latin-1") == (0, "c\n-\n\\u0107\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "csv"])
def test_a_question_without_end_is_interrupted(store: Path, form: str) -> None:
    query = "select sum(hash(i)) from range(100000000000000) t(i)"
    command = [sys.executable, "-m", "moescope.cli", "sql", str(store), query, "--format", form]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=store.parent)
    try:
        while not any(os.path.samefile(file, store) for file in Path(f"/proc/{process.pid}/fd").iterdir() if file.exists()):
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (INTERRUPTED, "", "moescope: interrupted\n")


QUESTIONS = {
    "": "Invalid value for 'QUERY': it is empty; see moescope sql --help",
    ";": 'the query is empty; ask something, such as "from load_balance"',
    " -- only a comment": 'the query is empty; ask something, such as "from load_balance"',
    "/* only */ -- comments\n;": 'the query is empty; ask something, such as "from load_balance"',
    "select 1; select 2": "the query holds 2 statements; ask one at a time",
    "drop table runs": "moescope sql only reads, and DROP is no question; ask with SELECT or FROM",
    "insert into runs values (1) returning *": "moescope sql only reads, and INSERT is no question; ask with SELECT or FROM",
    "copy runs to 'x.csv'": "moescope sql only reads, and COPY is no question; ask with SELECT or FROM",
    "attach 'x.duckdb'": "moescope sql only reads, and ATTACH is no question; ask with SELECT or FROM",
    "set threads = 1": "moescope sql only reads, and SET is no question; ask with SELECT or FROM",
    "select $a": "the query has parameters (a) and nothing fills them; write values",
}


@pytest.mark.parametrize("query", QUESTIONS)
def test_one_question_that_reads(store: Path, query: str) -> None:
    done = CliRunner().invoke(main, ["sql", str(store), query])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.replace("see main", "see moescope") == f"moescope: {QUESTIONS[query]}\n"


@pytest.mark.parametrize(
    "query", ["from runs; -- this", "explain from runs", "describe runs", "with a as (select 1) from a", "values (1)"]
)
def test_questions_of_every_form(store: Path, query: str) -> None:
    assert CliRunner().invoke(main, ["sql", str(store), query]).exit_code == 0


@pytest.mark.slow
def test_a_hub_that_never_answers(tmp_path: Path) -> None:
    """A server that takes connections and says nothing stands for a network that swallows everything."""
    import socket

    (tmp_path / "data.txt").write_text("a\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
        }
        wanted = {"trace nobody/nothing --data data.txt": "the hub cannot be reached",
                  "trace mixtral --data nobody/nothing": "cannot be loaded"}  # fmt: skip
        with ThreadPoolExecutor() as both:  # each waits for the other end for most of its time
            told = list(both.map(lambda line: shell(f"cd {tmp_path}; MOESCOPE {line} --store run.duckdb", **settings), wanted))
        for (code, out, err), said_of in zip(told, wanted.values()):
            assert (code in (1, 2), out, err.count("\n"), said_of in err) == (True, "", 1, True), err
