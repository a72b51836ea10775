"""The endpoint of a live model: JSON in, server-sent events out, for who has its token (docs/live.md)."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import InputError, MoescopeError
from .asked import MOST_BYTES, read_asked
from .desk import Desk, Ticket
from .listening import Row

WATCH = 0.5  # seconds between two looks at whether to end
BREATH = 1.0  # seconds after which a line without meaning is sent, so that it is noticed who has left
Answer = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """Over one desk. `token`: what a request has to bear.

    `end` is called after `idle` seconds without a request, and where no model of the desk can be loaded.
    """

    def __init__(self, desk: Desk, token: str, idle: float | None = None, end: Callable[[], object] = lambda: None) -> None:
        self.desk, self.token, self.idle, self.end = desk, token, idle, end
        self.last, self.open = time.monotonic(), 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/about", self._let_in(self.about)),
            Route("/run", self._let_in(self.run), methods=["POST"]),
            Route("/stop/{uid}", self._let_in(self.stop), methods=["POST"]),
            Route("/runs/{uid}", self._let_in(self.packed)),
        ]

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            watch = asyncio.create_task(self._ends())
            yield
            watch.cancel()
            await run_in_threadpool(self.desk.close)

        return Starlette(routes=routes, lifespan=lifespan)

    def _let_in(self, answer: Answer) -> Answer:
        """The same for who bears the token; whatever goes wrong is a sentence."""

        async def guarded(request: Request) -> Response:
            borne = request.headers.get("authorization", "")
            if not hmac.compare_digest(borne.encode(), f"Bearer {self.token}".encode()):
                return JSONResponse({"sentence": "This endpoint needs its token: send the header Authorization: Bearer …"}, 403)
            self.last = time.monotonic()
            try:
                return await answer(request)
            except MoescopeError as error:
                return JSONResponse({"sentence": str(error)}, 400)

        return guarded

    async def about(self, request: Request) -> Response:
        """What a model is, and whether it is ready."""
        return JSONResponse(self.desk.about(request.query_params.get("model", "")))

    async def run(self, request: Request) -> Response:
        """A prompt; its events as they come."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise InputError(f"the request has more than {MOST_BYTES >> 20} MiB: send a smaller picture or a shorter text")
        asked = read_asked(body, self.desk.names[0])
        self.desk.named(asked.model)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Row]()
        ticket = self.desk.ask(asked, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        return StreamingResponse(
            self._events(ticket, events), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _events(self, ticket: Ticket, events: "asyncio.Queue[Row]") -> AsyncIterator[bytes]:
        self.open += 1
        whole = False
        try:
            while not whole:
                try:
                    event = await asyncio.wait_for(events.get(), BREATH)
                except TimeoutError:
                    yield b": waiting\n\n"
                    continue
                yield b"data: " + json.dumps(event, default=str).encode() + b"\n\n"
                whole = event["event"] in ("end", "refused")
        finally:
            self.open, self.last = self.open - 1, time.monotonic()
            if not whole:
                ticket.leave()

    async def stop(self, request: Request) -> Response:
        """End a prompt early."""
        return JSONResponse({"stopped": self.desk.stop(request.path_params["uid"])})

    async def packed(self, request: Request) -> Response:
        """A run, as a store takes it."""
        return Response(await run_in_threadpool(self.desk.packed, request.path_params["uid"]), media_type="application/x-tar")

    async def _ends(self) -> None:
        while not (self.desk.hopeless() or self._nobody_asks()):
            await asyncio.sleep(WATCH)
        self.end()

    def _nobody_asks(self) -> bool:
        return self.idle is not None and not self.open and time.monotonic() - self.last > self.idle


def answers(desk: Desk, token: str) -> Any:
    """The application, for tests and servers of one's own."""
    return Endpoint(desk, token).app()
