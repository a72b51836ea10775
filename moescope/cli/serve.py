"""moescope serve: a serving engine with moescope inside it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ._support.options import FILE, TEXT

_PATIENCE = "60"  # seconds that a server which is to end gives its processes: a run has to be joined to its store in them
HANDS_OVER = True  # what the server prints is the user's


@click.command(name="serve", context_settings={"ignore_unknown_options": True})
@click.argument("engine", type=click.Choice(["vllm"]))
@click.argument("model", type=TEXT)
@click.argument("arguments", nargs=-1, type=TEXT, metavar="[-- ENGINE'S OPTIONS]")
@click.option("--store", type=FILE, required=True, help="The store to write into.")
@click.option("--name", type=TEXT, help="Of the run; default: the model's.")
def command(engine: str, model: str, arguments: tuple[str, ...], store: Path, name: str | None) -> None:
    """Serve MODEL by an engine's own server, and keep which experts its routers chose for every token, with their weights.

    \b
    moescope serve vllm Qwen/Qwen3-30B-A3B --store run.duckdb -- --port 8000 --max-model-len 8192

    Whatever goes wrong with the store, requests are served. Ctrl-C ends the server and completes the run; of a server that is
    killed, `moescope recover` keeps what was committed.
    """
    from ..store.write.change import check_target
    from ..store.write.resume import unjoined

    _installed(engine)
    check_target(store)
    before = _runs(store)
    code = _run([sys.executable, *_server(), model, *_patient(arguments)], _environment(store, name))
    left = [part for part in unjoined(store).parts if not part.alive()] if store.exists() else []
    new = sorted(_runs(store) - before)
    click.echo(f"run {', '.join(map(str, new))} of {store}" if new else f"no run was completed in {store}")
    if left:
        click.echo(f"moescope: a run was cut off; keep what it had committed: moescope recover {store}", err=True)
    raise SystemExit(code)


def _installed(engine: str) -> None:
    """InputError where the engine is not installed beside moescope."""
    from importlib.util import find_spec

    from ..errors import InputError

    if find_spec(engine) is None:
        raise InputError(
            f"{engine} is not installed beside moescope ({sys.executable}): install moescope where the engine is "
            f"(pip install 'moescope[{engine}]')"
        )


def _server() -> list[str]:
    """vLLM's server, which a model's name follows. `vllm serve` asks for the version of a package `vllm`, by which name its
    builds for CPUs are not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm")
    except PackageNotFoundError:
        return ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    return ["-m", "vllm.entrypoints.cli.main", "serve"]


def _patient(arguments: tuple[str, ...]) -> list[str]:
    """vLLM kills its processes at once where it is not told to wait."""
    told = any(one.split("=")[0] == "--shutdown-timeout" for one in arguments)
    return [*arguments, *([] if told else ["--shutdown-timeout", _PATIENCE])]


def _environment(store: Path, name: str | None) -> dict[str, str]:
    own = {"MOESCOPE_VLLM_STORE": str(store.absolute())}
    return {
        "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": _PATIENCE,
        **os.environ,
        **own,
        **({"MOESCOPE_VLLM_NAME": name} if name else {}),
    }


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The server, until it ends; the signals that end it are its own."""
    child = subprocess.Popen(command, env=environment, start_new_session=True)

    def pass_on(number: int, frame: Any) -> None:
        child.send_signal(number)

    old = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _runs(store: Path) -> set[int]:
    """Numbers of the runs that a store has complete."""
    from ..store import open_store

    if not store.exists():
        return set()
    with open_store(store) as opened:
        return {int(row[0]) for row in opened.sql("select run from runs where status = 'complete'").fetchall()}
