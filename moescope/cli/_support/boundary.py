"""Where every command ends: whatever is raised becomes one sentence on standard error and an exit code.

0 done, 1 refused or failed, 2 asked wrongly, 130 interrupted (128 + SIGINT), 141 nobody reads standard output (128 + SIGPIPE).
Libraries are kept from talking beside the sentence; `--debug` lets them, and shows the traceback.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import click

from ...errors import MoescopeError
from ...foreign import one_line, out_of_memory, said

INTERRUPTED, UNREAD = 130, 141
_MOST = 2000  # characters of a sentence


@dataclass
class Session:
    """One command line: whether tracebacks are wanted, and whether Ctrl-C was pressed."""

    debug: bool = False
    interrupted: bool = False


def guarded(call: Callable[[Session], object]) -> int:
    """Do it; gives the exit code, and has said why where it is not 0."""
    session = Session()
    _fill_closed()
    with _listening(session):
        try:
            call(session)
            code = 0
        except click.exceptions.Exit as end:
            code = end.exit_code
        except SystemExit as end:
            code = _say(end.code, 1) if isinstance(end.code, str) else int(end.code or 0)
        except BaseException as error:
            code = _explained(error, session)
        return _flushed(code, session)


def _explained(error: BaseException, session: Session) -> int:
    """Say one sentence about an exception; gives the exit code."""
    if session.debug and not isinstance(error, click.UsageError):
        _show(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "moescope"
        return _say(f"{error.format_message().rstrip('.')}; see {where} --help", error.exit_code)
    if isinstance(error, click.ClickException):
        return _say(error.format_message(), error.exit_code)
    if isinstance(error, MoescopeError):
        return _say(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt | click.Abort) or (session.interrupted and not isinstance(error, MoescopeError)):
        return _say("interrupted", INTERRUPTED)  # DuckDB makes a RuntimeError of Ctrl-C
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return UNREAD
    hint = "" if isinstance(error, OSError) or out_of_memory(error) else " (moescope --debug shows where)"
    return _say(f"{said(error)}{hint}", 1)


def _say(sentence: str, code: int) -> int:
    with suppress(OSError):
        click.echo(f"moescope: {one_line(sentence, _MOST)}", err=True)
    return code


def _show(error: BaseException) -> None:
    with suppress(OSError):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def _flushed(code: int, session: Session) -> int:
    """What is still held for standard output goes out; the interpreter would complain of it in three lines."""
    try:
        sys.stdout.flush()
        return code
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = error.filename or "standard output"
        return code or _explained(error, session)


def _fill_closed() -> None:
    """A closed standard stream would be the number of the next file opened, and what is printed would be written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # names may hold what the terminal cannot


@contextmanager
def _listening(session: Session) -> Iterator[None]:
    """Remember a Ctrl-C, which some libraries raise as something else. Only where Ctrl-C is Python's own affair."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return

    def heard(number: int, frame: Any) -> None:
        session.interrupted = True
        signal.default_int_handler(number, frame)

    try:
        signal.signal(signal.SIGINT, heard)
    except ValueError:  # not the main thread, where it never arrives
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
