"""moescope app: the dashboard over a store."""

import os
import subprocess
import sys
from pathlib import Path

import click

LOCAL = ("127.0.0.1", "localhost", "::1")


@click.command(name="app")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True, help="Where it listens.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="0.0.0.0 shows the store to everybody who reaches this machine."
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
    environment = os.environ | {"MOESCOPE_STORE": str(store.resolve()), "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}
    try:
        raise SystemExit(subprocess.call(arguments(port, host, headless), env=environment))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


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
