"""An engine's own server as a child: whether it is there, what it is told, what it left."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = "60"  # seconds that a server which is to end gives its processes: a run has to be joined to its store in them


def installed(engine: str) -> None:
    """InputError where the engine is not installed beside moescope."""
    from importlib.util import find_spec

    from ...errors import InputError

    if find_spec(engine) is None:
        raise InputError(
            f"{engine} is not installed beside moescope ({sys.executable}): install moescope where the engine is "
            f"(pip install 'moescope[{engine}]')"
        )


def server() -> list[str]:
    """vLLM's server, which a model's name follows. `vllm serve` asks for the version of a package `vllm`, by which name its
    builds for CPUs are not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm")
    except PackageNotFoundError:
        return ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    return ["-m", "vllm.entrypoints.cli.main", "serve"]


def patient(arguments: tuple[str, ...]) -> list[str]:
    """vLLM kills its processes at once where it is not told to wait."""
    told = any(one.split("=")[0] == "--shutdown-timeout" for one in arguments)
    return [*arguments, *([] if told else ["--shutdown-timeout", PATIENCE])]


def environment(store: Path, name: str | None) -> dict[str, str]:
    """Variables by which moescope inside the engine knows where to write."""
    own = {"MOESCOPE_VLLM_STORE": str(store.absolute())}
    return {
        "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": PATIENCE,
        **os.environ,
        **own,
        **({"MOESCOPE_VLLM_NAME": name} if name else {}),
    }


def run_server(command: list[str], environment: dict[str, str]) -> int:
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


def runs_of(store: Path) -> set[int]:
    """Numbers of the runs that a store has complete."""
    from ...store import open_store

    if not store.exists():
        return set()
    with open_store(store) as opened:
        return {int(row[0]) for row in opened.sql("select run from runs where status = 'complete'").fetchall()}
