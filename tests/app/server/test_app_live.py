"""The page Try it without a model: what it begins with, what its server hands on, and how a model's process comes and goes."""

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import synthetic_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from moescope.app.components import live
from moescope.app.server import live_model, live_routes
from moescope.app.server.live_model import LiveModel, ended
from moescope.errors import StoreError

MAIN = Path(live.__file__).parents[2] / "main.py"


def begun(store: Path, monkeypatch: pytest.MonkeyPatch, named: str = "", **query: str) -> dict[str, Any]:
    """What the view is drawn from."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(live_model.model, "named", named)
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    monkeypatch.setattr(live, "show", lambda data, *_: shown.append(data))
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params.update(query)
    test.switch_page("views/try_it.py")
    test.run()
    assert not test.exception
    assert test.error == []
    return shown[-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "small.duckdb"
    synthetic_app.text_run(path, "small", documents=1)
    return path


def test_the_page_begins_with_what_its_address_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = begun(store, monkeypatch)
    assert (plain["model"], plain["side"], plain["changes"]) == ("mixtral", "none", [])
    assert plain["models"] == ["mixtral", "switch", "switch-collapsed", "vmoe"]
    assert all(url.startswith("data:image/png;base64,") for url in plain["samples"])
    sent = begun(store, monkeypatch, prompt="Once", model="switch", beside="changed", change="1:0=off,2:3=+1.5,nothing")
    assert (sent["prompt"], sent["model"], sent["side"]) == ("Once", "switch", "changed")
    assert sent["changes"] == [["1:0", "off"], ["2:3", "+1.5"]]
    assert begun(store, monkeypatch, model="gpt", beside="x")["model"] == "mixtral"


def test_the_model_that_is_named_comes_first(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = begun(store, monkeypatch, "some/model")
    assert (found["models"][0], found["model"]) == ("some/model", "some/model")
    assert begun(store, monkeypatch, "http://127.0.0.1:9/?token=a")["models"] == [""]


class Upstream:
    """An endpoint that gives two events."""

    async def run(self, request: Request) -> Response:
        self.borne, self.body = request.headers["authorization"], await request.json()
        if self.body.get("text") == "bad":
            return JSONResponse({"sentence": "that is bad"}, 400)

        async def events() -> Any:
            yield b'data: {"event": "begin"}\n\n'
            yield b'data: {"event": "end"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")

    async def packed(self, request: Request) -> Response:
        if request.path_params["uid"] == "gone":
            return JSONResponse({"sentence": "this run is not there any more"}, 400)
        return Response(b"packed")

    def app(self) -> Starlette:
        about = lambda request: JSONResponse({"state": "ready", "model": request.query_params["model"]})  # noqa: E731
        stop = lambda request: JSONResponse({"stopped": True})  # noqa: E731
        return Starlette(
            routes=[
                Route("/run", self.run, methods=["POST"]), Route("/about", about), Route("/runs/{uid}", self.packed),
                Route("/stop/{uid}", stop, methods=["POST"]),
            ]
        )  # fmt: skip


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    made = Upstream()
    transport = httpx.ASGITransport(made.app(), raise_app_exceptions=True)
    monkeypatch.setattr(live_routes, "client", lambda: httpx.AsyncClient(transport=transport))
    monkeypatch.setattr(live_routes.model, "named", "http://model.invalid/?token=sesame")
    monkeypatch.setenv("MOESCOPE_STORE", "/a/store.duckdb")
    return made


@pytest.fixture
def visitor() -> TestClient:
    return TestClient(Starlette(routes=live_routes.ROUTES))


def test_what_is_asked_is_handed_on_with_the_token(upstream: Upstream, visitor: TestClient) -> None:
    assert visitor.get("/live/about?model=mixtral").json() == {"state": "ready", "model": "mixtral"}
    said = visitor.post("/live/run", content=json.dumps({"text": "a"}))
    assert said.headers["content-type"].startswith("text/event-stream")
    assert said.text == 'data: {"event": "begin"}\n\ndata: {"event": "end"}\n\n'
    assert (upstream.borne, upstream.body) == ("Bearer sesame", {"text": "a"})
    assert visitor.post("/live/stop/x").json() == {"stopped": True}
    refused = visitor.post("/live/run", content=json.dumps({"text": "bad"})).text
    assert json.loads(refused[6:]) == {"event": "refused", "sentence": "that is bad"}


def test_a_run_is_kept_or_it_is_said_why_not(upstream: Upstream, visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def join(*given: Any) -> int:
        kept.append(given)
        if given[2] == "read-only":
            raise StoreError("cannot write store.duckdb: permission denied; choose one that can be written")
        return 7

    monkeypatch.setattr(live_routes, "join_packed", join)
    assert visitor.post("/live/keep/x", content='{"name": " mine "}').json() == {"run": 7}
    assert kept == [(Path("/a/store.duckdb"), b"packed", "mine")]
    refused = visitor.post("/live/keep/x", content='{"name": "read-only"}')
    assert (refused.status_code, refused.json()["sentence"][:12]) == (400, "cannot write")
    assert "not there any more" in visitor.post("/live/keep/gone", content="{}").json()["sentence"]


def test_an_endpoint_that_breaks_off_or_is_not_there_is_a_sentence(
    upstream: Upstream, visitor: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b'data: {"event": "begin"}\n\n'
            raise httpx.ReadError("gone")

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/run":
            return httpx.Response(200, stream=Broken())
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(live_routes, "client", lambda: httpx.AsyncClient(transport=httpx.MockTransport(respond)))
    events = [json.loads(e[6:]) for e in visitor.post("/live/run", content="{}").text.split("\n\n") if e]
    assert [e["event"] for e in events] == ["begin", "refused"]
    assert "ended while it answered" in events[1]["sentence"]
    for path in ("/live/keep/x", "/live/stop/x"):
        assert "cannot be reached" in visitor.post(path, content="{}").json()["sentence"]
    assert "cannot be reached" in visitor.get("/live/about").json()["sentence"]


def test_a_visitor_from_elsewhere_starts_no_model(visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_routes.model, "named", "")
    monkeypatch.setattr(live_routes.model, "ensure", lambda *_: pytest.fail("a model was started"))
    assert "open to other machines" in visitor.get("/live/about").json()["sentence"]
    assert "open to other machines" in visitor.post("/live/run", content="{}").text
    assert visitor.post("/live/keep/x", content="{}").status_code == 403
    monkeypatch.setattr(live_routes.model, "named", "none")
    assert "--model none" in visitor.get("/live/about").json()["sentence"]


WHY = {
    (0, ""): "", (-signal.SIGTERM, ""): "", (143, "x"): "",
    (-signal.SIGKILL, ""): "the model's process ended (it was killed, perhaps for want of memory)",
    (-signal.SIGSEGV, ""): "the model's process ended (signal 11)",
    (1, "noise\nmoescope: there is no model 'x'\n"): "there is no model 'x'",
    (3, "Traceback"): "the model's process ended (exit 3)",
}  # fmt: skip


@pytest.mark.parametrize(("code", "said"), WHY)
def test_why_a_process_ended_is_said(code: int, said: str) -> None:
    assert ended(code, said).startswith(WHY[code, said])
    assert bool(ended(code, said)) == bool(WHY[code, said])


SERVES = """import sys, time
print("mixtral at http://127.0.0.1:1234/?token=x (Ctrl-C ends it)", flush=True)
time.sleep(600)
"""
FAILS = """import sys
print("moescope: there is not enough memory", file=sys.stderr)
raise SystemExit(1)
"""


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> LiveModel:
    """A model whose process is this program."""
    file = folder / "program.py"
    file.write_text(text)
    monkeypatch.setattr(live_model, "tied_process", SimpleNamespace(__file__=str(file)))
    return LiveModel("")


def test_a_process_that_is_killed_is_noticed_and_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = program(tmp_path, SERVES, monkeypatch)
    try:
        assert model.ensure(30)
        assert model.ensure(0)  # it runs already
        first = model.process
        assert model.where is not None
        assert model.where[0] == "http://127.0.0.1:1234"
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        first.wait(10)
        until = time.monotonic() + 10
        while not model.why and time.monotonic() < until:
            time.sleep(0.01)
        assert "it was killed" in model.why
        assert model.where is None
        assert model.ensure(30)
        assert model.process is not first
    finally:
        model.stop()
    assert model.process is not None
    assert model.process.wait(10) == -signal.SIGTERM


def test_a_process_that_does_not_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = program(tmp_path, FAILS, monkeypatch)
    assert not model.ensure(30)
    assert model.why == "there is not enough memory"


def test_who_leaves_the_page_leaves_the_model(upstream: Upstream) -> None:
    """The browser's request ends, and with it the one to the model."""
    closed = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b": waiting\n\n"
                await asyncio.sleep(0.01)

        async def aclose(self) -> None:
            closed.set()

    async def leave() -> None:
        response = httpx.Response(200, stream=Endless())
        response.request = httpx.Request("POST", "http://model.invalid/run")
        passed = live_routes._passed(response)
        assert await anext(passed) == b": waiting\n\n"
        await passed.aclose()  # type: ignore[attr-defined]

    with ThreadPoolExecutor(1) as other:  # a browser of another test keeps this thread's loop
        other.submit(asyncio.run, leave()).result()  # type: ignore[arg-type]
    assert closed.is_set()
