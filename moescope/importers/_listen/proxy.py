"""The door itself: every request goes on to the engine, every answer back; of those that route, the routing is kept."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .asking import PATHS, Asked, asked, labels_of, without
from .events import Events
from .keeper import Kept

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_MOST = 64 << 20  # bytes of a request that is looked into
_REFUSES = (400, 422)  # what an engine answers that does not know what we asked for
Headers = list[tuple[bytes, bytes]]


class Keeps(Protocol):
    """Where answers go."""

    def keep(self, answer: Kept) -> None:
        """Take one; never wait, never raise."""


class Door:
    """Before one engine. `header`: the request header that labels; it is not sent on."""

    def __init__(
        self, upstream: str, keeper: Keeps, header: str = "x-moescope-label", transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.upstream, self.keeper, self.header = upstream.rstrip("/"), keeper, header.lower()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        timeout = httpx.Timeout(None, connect=10.0)
        self.client = httpx.AsyncClient(transport=transport, limits=limits, timeout=timeout, trust_env=False)
        self.plain: set[str] = set()  # paths whose engine refuses to be asked for routing

    def app(self) -> Starlette:
        """The ASGI application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await self.client.aclose()

        return Starlette(routes=[Route("/{path:path}", self.answer, methods=_METHODS)], lifespan=lifespan)

    async def answer(self, request: Request) -> Response:
        """One request and its answer."""
        path = request.url.path
        ask = await self._asked(request, path)
        try:
            response = await self._send(request, None if ask is None else ask.body)
            if ask is not None and response.status_code in _REFUSES and ask.body != ask.given:
                again = await self._again(request, ask, response, path)
                response = again
        except httpx.HTTPError as error:
            words = f"moescope listen cannot reach {self.upstream} ({type(error).__name__}): is the engine running there?"
            return JSONResponse({"error": {"message": words, "type": "bad_gateway"}}, 502)
        if ask is None or response.status_code != 200 or "content-encoding" in response.headers:
            return _passed(response)
        kind = response.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            return self._streamed(response, ask)
        return await self._whole(response, ask) if kind.startswith("application/json") else _passed(response)

    async def _asked(self, request: Request, path: str) -> Asked | None:
        """What to ask of the engine; None where the request passes as it is."""
        size = request.headers.get("content-length", "")
        if request.method != "POST" or path not in PATHS or not size.isdigit() or int(size) > _MOST:
            return None
        body = await request.body()
        found = asked(body, path)
        if found is not None:
            found.labels = labels_of(request.headers.get(self.header))
            found.body = found.given if path in self.plain else found.body
        return found

    async def _send(self, request: Request, body: bytes | None) -> httpx.Response:
        drop = _HOP | {self.header, "host", "accept-encoding", *(("content-length",) if body is not None else ())}
        headers = [(k, v) for k, v in request.headers.raw if k.decode("latin-1").lower() not in drop]
        content: Any = request.stream() if body is None else body
        if body is None and request.method in ("GET", "HEAD", "OPTIONS") and "content-length" not in request.headers:
            content = None
        url = self.upstream + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers.append((b"accept-encoding", b"identity"))
        made = self.client.build_request(request.method, url, headers=headers, content=content)
        return await self.client.send(made, stream=True)

    async def _again(self, request: Request, ask: Asked, refused: httpx.Response, path: str) -> httpx.Response:
        """The request as it came; where that is answered, this engine is not asked for routing at this path again."""
        await refused.aclose()
        response = await self._send(request, ask.given)
        if response.status_code not in _REFUSES:
            self.plain.add(path)
        return response

    async def _whole(self, response: httpx.Response, ask: Asked) -> Response:
        try:
            body = await response.aread()
        finally:
            await response.aclose()
        headers = _headers(response, {"content-length"})
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return _made(body, headers)
        for one in value if isinstance(value, list) else [value]:
            self._keep(one, ask)
        mine = [without(one, ask) for one in value] if isinstance(value, list) else without(value, ask)
        return _made(body if mine == value else json.dumps(mine, ensure_ascii=False).encode(), headers)

    def _streamed(self, response: httpx.Response, ask: Asked) -> Response:
        events = Events(ask)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in response.aiter_raw():
                    for part in events.pass_on(piece):
                        if part:
                            yield part
                if rest := events.flush():
                    yield rest
            finally:
                await response.aclose()
                self._keep(events.answer(), ask)

        made = StreamingResponse(pieces(), response.status_code)
        made.raw_headers = _headers(response, {"content-length"})
        return made

    def _keep(self, value: Any, ask: Asked) -> None:
        if isinstance(value, dict) and value and "error" not in value:
            self.keeper.keep(Kept(value, ask.text, ask.start, ask.labels))


def _headers(response: httpx.Response, drop: Iterable[str] = ()) -> Headers:
    gone = _HOP | set(drop)
    return [(k.lower(), v) for k, v in response.headers.raw if k.decode("latin-1").lower() not in gone]


def _made(body: bytes, headers: Headers) -> Response:
    made = Response(body)
    made.raw_headers = [*headers, (b"content-length", str(len(body)).encode())]
    return made


def _passed(response: httpx.Response) -> Response:
    made = StreamingResponse(response.aiter_raw(), response.status_code, background=BackgroundTask(response.aclose))
    made.raw_headers = _headers(response)
    return made
