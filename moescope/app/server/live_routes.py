"""What the page Try it asks of this server: /live/…, handed on to the model's endpoint; behind the door like everything here.

The browser never speaks to the model's process, nor knows its token. A run is kept here, for here the store is.
"""

import json
import os
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from moescope.app.server.live_model import NONE, model
from moescope.errors import MoescopeError
from moescope.foreign import said
from moescope.store.write.many.moved import join_packed

LOCAL = ("127.0.0.1", "localhost", "::1")
MOST_NAME = 200  # characters
_GONE = "the model's process ended while it answered: run the prompt once more, and it starts anew"
_OPEN = (
    "This dashboard is open to other machines, so a visitor from one starts no model here: start it with --model MODEL, which "
    "lets everybody with its address try prompts."
)


@cache
def client() -> httpx.AsyncClient:
    """One for all visitors."""
    return httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10.0), trust_env=False)


def refusal(request: Request) -> str:
    """Why a visitor may not ask, or nothing."""
    if model.named == NONE:
        return "This dashboard was started with --model none, so it runs no model."
    return "" if model.named or (request.client and request.client.host in LOCAL) else _OPEN


async def about(request: Request) -> Response:
    """The model and its state."""
    if words := refusal(request):
        return _failed(words)
    if not await run_in_threadpool(model.ensure, 0.2):
        return _failed(model.why) if model.why else JSONResponse({"state": "loading", "sentence": "starting"})
    return await _handed("GET", "/about", params=dict(request.query_params))


async def run(request: Request) -> Response:
    """A prompt; its events as they come."""
    if words := refusal(request):
        return _refused(words)
    body = await request.body()
    if not await run_in_threadpool(model.ensure, 60.0):
        return _refused(model.why or "the model's process does not start; the terminal says more")
    where, token = model.where or ("", "")
    try:
        asked = client().build_request("POST", f"{where}/run", content=body, headers={"authorization": f"Bearer {token}"})
        response = await client().send(asked, stream=True)
    except httpx.HTTPError as error:
        return _refused(_unreached(error))
    if response.status_code != 200:
        told = _json(await response.aread())
        await response.aclose()
        return _refused(told.get("sentence") or f"the model's endpoint refuses ({response.status_code})")
    return StreamingResponse(_passed(response), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _passed(response: httpx.Response) -> AsyncIterator[bytes]:
    """The events; one more where they break off."""
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.HTTPError:
        yield _event(model.why or _GONE)
    finally:
        await response.aclose()


async def stop(request: Request) -> Response:
    """End a prompt early."""
    return await _handed("POST", f"/stop/{request.path_params['uid']}")


async def keep(request: Request) -> Response:
    """Join a run to the store: {"run": its number}, or a sentence."""
    if words := refusal(request):
        return _failed(words, 403)
    name = str(_json(await request.body()).get("name") or "").strip()[:MOST_NAME] or None
    where, token = model.where or ("", "")
    try:
        headers = {"authorization": f"Bearer {token}"}
        response = await client().get(f"{where}/runs/{request.path_params['uid']}", headers=headers)
        if response.status_code != 200:
            return _failed(
                _json(response.content).get("sentence") or "the run is not there any more: run the prompt again", 400
            )
        store = Path(os.environ["MOESCOPE_STORE"])
        return JSONResponse({"run": await run_in_threadpool(join_packed, store, response.content, name)})
    except httpx.HTTPError as error:
        return _failed(_unreached(error), 400)
    except MoescopeError as error:
        return _failed(str(error), 400)


async def _handed(method: str, path: str, **more: Any) -> Response:
    where, token = model.where or ("", "")
    try:
        response = await client().request(method, where + path, headers={"authorization": f"Bearer {token}"}, **more)
    except httpx.HTTPError as error:
        return _failed(_unreached(error))
    return Response(response.content, response.status_code, media_type="application/json")


def _unreached(error: Exception) -> str:
    if model.elsewhere:
        return f"the model's endpoint cannot be reached ({type(error).__name__}): is moescope serve running there?"
    return model.why or f"the model's process does not answer ({said(error)}): run the prompt once more"


def _refused(sentence: str) -> Response:
    return Response(_event(sentence), media_type="text/event-stream")


def _failed(sentence: str, status: int = 200) -> Response:
    return JSONResponse({"state": "failed", "sentence": sentence}, status)


def _event(sentence: str) -> bytes:
    return b"data: " + json.dumps({"event": "refused", "sentence": sentence}).encode() + b"\n\n"


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


ROUTES = [
    Route("/live/about", about),
    Route("/live/run", run, methods=["POST"]),
    Route("/live/stop/{uid}", stop, methods=["POST"]),
    Route("/live/keep/{uid}", keep, methods=["POST"]),
]
