"""moescope app: the dashboard over a store."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from .._support.address import Address, address, server_file
from .._support.options import PORT, STORE, TEXT

HANDS_OVER = True  # to a server that talks on standard error


@click.command(name="app")
@click.argument("store", type=STORE)
@click.option("--port", type=PORT, default=8501, show_default=True, help="Where it listens.")
@click.option(
    "--host",
    default="127.0.0.1",
    type=TEXT,
    show_default=True,
    help="0.0.0.0 lets other machines reach it, under this one's name.",
)
@click.option(
    "--allow-host", multiple=True, type=TEXT, metavar="NAME[:PORT]", help="Another name of it: through a tunnel or a proxy."
)
@click.option(
    "--token",
    type=TEXT,
    envvar="MOESCOPE_TOKEN",
    help="What lets one in, else made anew; others see it here, less so in MOESCOPE_TOKEN.",
)
@click.option("--no-token", is_flag=True, help="Let everybody in who reaches it.")
@click.option("--model", type=TEXT, help="Of the page Try it: a MODEL as of trace, the address of a moescope serve, or none.")
@click.option("--headless", is_flag=True, help="Do not open a browser.")
def command(
    store: Path,
    port: int,
    host: str,
    allow_host: tuple[str, ...],
    token: str | None,
    no_token: bool,
    model: str | None,
    headless: bool,
) -> None:
    """Open the dashboard over STORE in the browser; nothing is sent anywhere.

    Whoever has the printed address, with its token, can read the store. It is only read, but for the form on the Ablation page,
    which runs `moescope ablate`, and for what is kept on the page Try it.
    """
    from ...errors import InputError
    from .._support.reading import reading

    reading(store).close()
    if token == "":
        raise InputError("the token is empty; give one, or --no-token to let everybody in")
    place, server = address(host, port, "" if no_token else token, allow_host), server_file()
    if not place.local:
        whom = "everybody who reaches" if no_token else "everybody with this address at"
        click.echo(f"moescope: {whom} {host}:{port} can read {store}", err=True)
    click.echo(f"{store} at {place.of()} (Ctrl-C ends it)")
    sys.stdout.flush()
    arguments, opens = place.arguments(server), {} if headless else {"MOESCOPE_OPEN": place.of()}
    # In the place of this process, so that whatever ends this command ends the server.
    os.execve(arguments[0], arguments, place.environment(store) | opens | ({"MOESCOPE_MODEL": model} if model else {}))


@dataclass(frozen=True)
class Site:
    """A dashboard that runs: its address, and the number of its process."""

    address: Address
    pid: int

    @property
    def url(self) -> str:
        """Where it is, without what lets one in."""
        return self.address.url

    def of(self, where: str = "") -> str:
        """The address of a page, such as "load?run=0", that lets one in."""
        return self.address.of(where)


@contextmanager
def serving(store: Path, seconds: float = 120, token: str | None = None) -> Iterator[Site]:
    """The dashboard over `store` on a free port, until the block ends; an empty token lets everybody in.

    TimeoutError if it does not answer within so many seconds.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    place = address("127.0.0.1", port, token)
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        place.arguments(server_file()), cwd=store.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=place.environment(store) | {"PYTHONPATH": paths, "MOESCOPE_PARENT": str(os.getpid())},
    )  # fmt: skip
    try:
        _answers(place.url, process, time.monotonic() + seconds)
        yield Site(place, process.pid)
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
