"""Where the dashboard listens, under which names it answers, and who is let in."""

import errno
import ipaddress
import os
import re
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...errors import InputError

NAME = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
WORDS = {
    errno.EADDRINUSE: "another program listens on port {port} of {host}; name another with --port, or end that program",
    errno.EACCES: "port {port} needs rights that you do not have; name one from 1024 with --port",
    errno.EPERM: "port {port} needs rights that you do not have; name one from 1024 with --port",
    errno.EADDRNOTAVAIL: "{host} is no address of this machine; name one of its own with --host, or 127.0.0.1",
}
LAUNCH = (  # Ctrl-C while it is loading ends it without a traceback
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); from streamlit.web.cli import main; main()"
)


@dataclass(frozen=True)
class Address:
    """A server's address: `ip` to listen at, `host` as it was asked for, `names` it answers to, as name:port."""

    host: str
    ip: str
    port: int
    names: tuple[str, ...] = ()
    token: str = ""

    @property
    def local(self) -> bool:
        """Only this machine reaches it."""
        return ipaddress.ip_address(self.ip).is_loopback

    @property
    def url(self) -> str:
        """The address without its token, ending in a slash."""
        everywhere = ipaddress.ip_address(self.ip).is_unspecified
        return f"http://{'127.0.0.1' if everywhere else _bracketed(self.host)}:{self.port}/"

    def of(self, where: str = "") -> str:
        """The address of a page, such as "load?run=0", with the token that lets one in."""
        if not self.token:
            return self.url + where
        return f"{self.url}{where}{'&' if '?' in where else '?'}token={quote(self.token, safe='')}"

    def environment(self, store: Path) -> dict[str, str]:
        """What the server finds in its environment."""
        own = {"MOESCOPE_STORE": str(store.resolve()), "MOESCOPE_TOKEN": self.token, "MOESCOPE_NAMES": " ".join(self.names)}
        return os.environ | own | {"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}

    def arguments(self, server: Path) -> list[str]:
        """The command line of the server; everything else is in the app's own .streamlit/config.toml."""
        options = {
            "server.port": self.port,
            "server.address": self.ip,
            "server.headless": "true",  # it would open and print an address without the token
            "logger.hideWelcomeMessage": "true",
            "browser.gatherUsageStats": "false",
            "server.fileWatcherType": "none",
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-c", LAUNCH, "run", str(server), *given]


def address(host: str, port: int, token: str | None = None, allowed: Sequence[str] = ()) -> Address:
    """Where a server can listen now; without a token, one is made. InputError in one sentence where it cannot."""
    if token and (len(token) > 200 or not re.fullmatch(r"[!-~]*", token) or token.isdigit()):  # ?token=12 is one of the text
        raise InputError("a token is at most 200 letters, digits and signs of ASCII without spaces, and not only digits")
    ip = _free(host, port)
    names = {f"{_bracketed(host).lower()}:{port}", *(name for text in allowed for name in _names(text, port))}
    if ipaddress.ip_address(ip).is_unspecified:
        names |= {f"{name.lower()}:{port}" for name in (socket.gethostname(), socket.getfqdn())}
    return Address(host, ip, port, tuple(sorted(names)), secrets.token_urlsafe(24) if token is None else token)


def _names(text: str, port: int) -> list[str]:
    found = NAME.fullmatch(text)
    if not found:
        raise InputError(f"--allow-host {text!r} is no name of a host; give NAME or NAME:PORT, as it stands in the address")
    return [f"{found[1].lower()}:{p}" for p in ([found[2]] if found[2] else [port, 80, 443])]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _free(host: str, port: int) -> str:
    """The first address of `host` at which this machine can listen."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"there is no host {host!r} that this machine knows; name one with --host, or 127.0.0.1") from error
    problem: OSError | None = None
    for family, kind, _, _, place in sorted(found, key=lambda one: one[0] != socket.AF_INET):
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
                probe.listen(1)
                return str(place[0])
            except OSError as error:
                problem = problem or error
    assert problem is not None
    words = WORDS.get(problem.errno or 0, "this machine cannot listen on port {port} of {host} ({problem.strerror})")
    raise InputError(words.format(host=host, port=port, problem=problem)) from problem


def server_file() -> Path:
    """The dashboard's server, which is run as a file."""
    return Path(__file__).parents[2] / "app" / "serve.py"
