"""moescope app: the dashboard over a store."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from ._options import FILE, PORT, TEXT

LOCAL = ("127.0.0.1", "localhost", "::1")
HANDS_OVER = True  # to a server that talks on standard error


@click.command(name="app")
@click.argument("store", type=FILE)
@click.option("--port", type=PORT, default=8501, show_default=True, help="Where it listens.")
@click.option(
    "--host",
    default="127.0.0.1",
    type=TEXT,
    show_default=True,
    help="0.0.0.0 shows the store to everybody who reaches this machine.",
)
@click.option("--headless", is_flag=True, help="Do not open a browser.")
def command(store: Path, port: int, host: str, headless: bool) -> None:
    """Open the dashboard over STORE in the browser; nothing is sent anywhere.

    The store is only read, but for the form on the Ablation page, which runs `moescope ablate`.
    """
    from ..store import open_store

    open_store(store).close()
    if host not in LOCAL:
        click.echo(f"moescope: everybody who reaches {host}:{port} can read {store}; there is no password", err=True)
    click.echo(f"{store} at http://{'127.0.0.1' if host in LOCAL else host}:{port} (Ctrl-C ends it)")
    try:
        raise SystemExit(subprocess.call(arguments(port, host, headless), env=environment(store)))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def environment(store: Path) -> dict[str, str]:
    """What the server finds in its environment."""
    return os.environ | {"MOESCOPE_STORE": str(store.resolve()), "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}


@contextmanager
def serving(store: Path, seconds: float = 120) -> Iterator[tuple[str, int]]:
    """The dashboard over `store` on a free port, until the block ends: its address and the number of its process.

    TimeoutError if it does not answer within so many seconds.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url, package = f"http://127.0.0.1:{port}/", str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        arguments(port, "127.0.0.1", headless=True), cwd=store.parent, env=environment(store) | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _answers(url, process, time.monotonic() + seconds)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str, process: "subprocess.Popen[bytes]", until: float) -> None:
    while process.poll() is None and time.monotonic() < until:
        try:
            return urllib.request.urlopen(url + "_stcore/health", timeout=1).close()  # type: ignore[no-any-return]
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"the dashboard at {url} did not start")


def server_file() -> Path:
    """The dashboard's server: in the wheel, or beside the package in a checkout. InputError if it is in neither."""
    from ..errors import InputError

    package = Path(__file__).parents[1]
    for place in (package / "_app", package.parent / "app"):
        if (place / "serve.py").is_file():
            return place / "serve.py"
    raise InputError("the dashboard is not part of this installation; install moescope from its wheel")


def arguments(port: int, host: str, headless: bool) -> list[str]:
    """The command line of the server; everything else is in the app's own .streamlit/config.toml."""
    options = {
        "server.port": port,
        "server.address": host,
        "server.headless": str(headless).lower(),
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
    }
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "streamlit", "run", str(server_file()), *given]
