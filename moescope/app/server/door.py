"""Who is let in: this server's own pages, by its own names, with its token; all else is refused before anything looks at it.

A name that leads here but is not ours is how another site's page gets past a browser's rules (DNS rebinding), so the host of
every request is compared with the names that the server goes by, and where a page asks, so is the page's origin.
"""

import hashlib
import hmac
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote_plus

from moescope.app.server.asset_cache import App, Receive, Scope, Send

OPEN = frozenset({"/_stcore/health"})  # says that the server runs, nothing else
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
TOKEN = "token"
HEADERS = {
    b"content-security-policy": b"frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_PLACE = re.compile(r"(?:(https?)://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>moescope</title>{again}</head>
<body style="font: 1rem/1.5 system-ui, sans-serif; margin: 4rem auto; max-width: 40rem; padding: 0 1rem">
<p>{words}</p></body></html>
"""
NEEDED = (
    "This dashboard needs its token: open the address that moescope app printed in its terminal, "
    "or add its ending, token=…, to this one."
)


def place(text: str) -> tuple[str, int] | None:
    """Name and port of a Host or Origin header; None where it is neither."""
    found = _PLACE.fullmatch(text)
    return (found[2].lower(), int(found[3] or _PORTS[found[1] or "http"])) if found else None


@dataclass(frozen=True)
class Visit:
    """One request, or one opening of a WebSocket."""

    scope: Scope

    def all(self, name: bytes) -> list[str]:
        """Every header of this name."""
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == name]

    def one(self, name: bytes) -> str:
        """The header of this name, or nothing."""
        return next(iter(self.all(name)), "")

    @cached_property
    def reads(self) -> bool:
        """It only asks for something."""
        return self.scope["type"] == "http" and self.scope["method"] in ("GET", "HEAD")

    @cached_property
    def opens(self) -> bool:
        """It opens a page in a tab, as a link or an address does."""
        asked = self.one(b"sec-fetch-mode"), self.one(b"sec-fetch-dest")
        return self.reads and asked == ("navigate", "document")

    @cached_property
    def query(self) -> list[str]:
        """The parts of the query as they were sent."""
        return [part for part in self.scope.get("query_string", b"").decode("latin-1").split("&") if part]

    @cached_property
    def cookie(self) -> str:
        """The cookie's name: browsers keep cookies by host, whatever the port, so it says the port that the browser sees."""
        port = (place(self.one(b"host")) or ("", 0))[1]
        return f"moescope-{port}"

    @cached_property
    def cookies(self) -> list[str]:
        """Values of the cookie; another program on this host may have set one of the same name."""
        pieces = [piece.strip().partition("=") for line in self.all(b"cookie") for piece in line.split(";")]
        return [value for name, _, value in pieces if name == self.cookie]

    def address(self, without: Callable[[str], bool] = lambda _: False) -> str:
        """The address, without some parts of its query; on this server, whatever its path looks like."""
        path = (self.scope.get("raw_path") or self.scope["path"].encode()).decode("latin-1").partition("?")[0]
        query = "&".join(part for part in self.query if not without(part))
        path, query = (re.sub(r"[^!-~]", "", text) for text in (path, query))
        return "/" + path.lstrip("/\\") + (f"?{query}" if query else "")


class Door:
    """ASGI middleware before everything else. `names` are further names of this server, as name:port; no token, no check."""

    def __init__(self, app: App, token: str, names: frozenset[str] = frozenset()) -> None:
        self.app, self.token, self.names = app, token, names
        self.pass_ = _pass(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, one WebSocket, or the server's own beginning and end."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope)
        words = self.stranger(visit) or ("" if self.known(visit) else NEEDED)
        if words:
            await _refuse(visit, words, receive, send)
        elif self.told(visit):
            await self._redirect(visit, send)
        else:
            await self.app(scope, receive, _guarded(send))

    def stranger(self, visit: Visit) -> str:
        """Why this is not asked by a page of ours at a name of ours, or nothing."""
        hosts, origins = visit.all(b"host"), visit.all(b"origin")
        if len(hosts) != 1 or not self.ours(visit, hosts[0], "host"):
            return (
                f"This dashboard does not go by the name “{_shown(hosts)}”: open the address that moescope app printed, "
                "or start it with --allow-host NAME."
            )
        if origins and (len(origins) > 1 or not self.ours(visit, origins[0], "origin")):
            return f"A page of “{_shown(origins)}” asked for this, and only the dashboard's own pages may."
        if visit.one(b"sec-fetch-site") in ("cross-site", "same-site") and not visit.opens:
            return "A page of another site asked for this, and only the dashboard's own pages may."
        return ""

    def ours(self, visit: Visit, text: str, kind: str) -> bool:
        """Whether a Host or Origin header names this server, with its port."""
        found = place(text)
        if found is None or (kind == "origin") != ("://" in text):
            return False
        address, port = visit.scope.get("server") or ("", 0)  # where it came in
        own = {f"{name}:{port}" for name in (*LOCAL, f"[{address}]" if ":" in address else address)}
        return f"{found[0]}:{found[1]}" in own | self.names

    def known(self, visit: Visit) -> bool:
        """Whether it carries the token, as cookie or in the address, or needs none."""
        if not self.token or (visit.reads and visit.scope["path"] in OPEN):
            return True
        carried = any(hmac.compare_digest(value.encode(), self.pass_.encode()) for value in visit.cookies)
        return carried or self.told(visit)

    def told(self, visit: Visit) -> bool:
        """Whether the address has the token in it."""
        return visit.reads and bool(self.token) and any(map(self.is_token, visit.query))

    def is_token(self, part: str) -> bool:
        """Whether a part of the query is our token; ?token=12 of the page Tokens is not."""
        key, _, value = part.partition("=")
        return unquote_plus(key) == TOKEN and hmac.compare_digest(_pass(unquote_plus(value)), self.pass_)

    async def _redirect(self, visit: Visit, send: Send) -> None:
        """To the same address without the token, which from then on is in a cookie."""
        kept = f"{visit.cookie}={self.pass_}; Path=/; HttpOnly; SameSite=Strict"
        where = visit.address(without=self.is_token)
        headers = [(b"location", where.encode()), (b"cache-control", b"no-store"), (b"set-cookie", kept.encode())]
        await _send(send, 303, headers, b"")


def _pass(token: str) -> str:
    """What the cookie holds: not the token itself, which opens other servers started with it."""
    return hashlib.sha256(b"moescope " + token.encode()).hexdigest()


def _shown(values: list[str]) -> str:
    return ", ".join(values)[:100] or "nothing"


def _guarded(send: Send) -> Send:
    """`send` that adds to every answer what a browser may not do with it."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [(key, value) for key, value in message.get("headers", []) if key.lower() not in HEADERS]
            message = {**message, "headers": [*others, *HEADERS.items()]}
        await send(message)

    return sent


async def _refuse(visit: Visit, words: str, receive: Receive, send: Send) -> None:
    if visit.scope["type"] == "websocket":
        await receive()  # that it wants to connect
        await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the server answers 403
        return
    # A strict cookie stays behind when a link on another site is followed: asked again from this page, it comes along.
    linked = visit.opens and visit.one(b"sec-fetch-site") in ("cross-site", "same-site") and words is NEEDED
    again = f'<meta http-equiv="refresh" content="0; url={html.escape(visit.address())}">' if linked else ""
    body = PAGE.format(words=html.escape(words), again=again).encode()
    await _send(send, 403, [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")], body)


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await _guarded(send)({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
