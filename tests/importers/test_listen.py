"""The door before an engine: nobody notices it, and what passes is kept as it was routed."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import captures
import httpx
import pytest
import uvicorn
from common_imports import alike, expected, rows
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import moescope
from moescope.importers._core.model import read_model
from moescope.importers._listen.keeper import Keeper
from moescope.importers._listen.proxy import Door


class Engine:
    """A server that answers request i with sequence i; it says routing, ids and usage only where it is asked."""

    def __init__(self, made: captures.Served, sglang: bool = False, strict: bool = False) -> None:
        self.made, self.sglang, self.strict = made, sglang, strict
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gate = threading.Event()  # set by the test's thread

    def app(self) -> Starlette:
        routes = [Route(path, self.complete, methods=["POST"]) for path in ("/v1/completions", "/v1/chat/completions")]
        return Starlette(
            routes=[*routes, Route("/generate", self.generate, methods=["POST"]), Route("/{path:path}", self.other)]
        )

    async def other(self, request: Request) -> Response:
        return Response(f"{request.method} {request.url.path}?{request.url.query}", headers={"x-own": "yes"})

    def answer(self, i: int, asked: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (captures.sglang_chat if self.sglang else captures.vllm)(self.made)[i]
        choice = found["choices"][0]
        if not asked.get("return_routed_experts"):
            choice.pop("routed_experts", None)
            choice.pop("sgl_ext", None)
        if not asked.get("return_token_ids"):
            choice.pop("token_ids", None)
            choice.pop("prompt_token_ids", None)
        return found | {"text": f"answer {i}"}

    async def complete(self, request: Request) -> Response:
        asked = await request.json()
        self.seen.append(asked)
        self.headers.append(dict(request.headers))
        if self.strict and "return_routed_experts" in asked:
            return JSONResponse({"error": {"message": "Extra inputs are not permitted"}}, 400)
        answer = self.answer(int(asked["prompt"].split()[-1]), asked)
        if not asked.get("stream"):
            return JSONResponse(answer)
        return StreamingResponse(self.stream(answer, asked), media_type="text/event-stream")

    async def stream(self, answer: dict[str, Any], asked: dict[str, Any]) -> AsyncIterator[bytes]:
        """An event a token, the routing with the last, then usage where it is asked."""
        whole = answer["choices"][0]
        routing = {name: whole[name] for name in ("routed_experts", "sgl_ext") if name in whole}
        count = answer["usage"]["completion_tokens"]
        usage = {"usage": None} if asked.get("stream_options", {}).get("include_usage") else {}
        for n in range(count):
            choice: dict[str, Any] = {"index": 0, "text": f"w{n}"}
            if "token_ids" in whole:
                choice["token_ids"] = whole["token_ids"][n : n + 1]
            if n == 0 and "prompt_token_ids" in whole:
                choice["prompt_token_ids"] = whole["prompt_token_ids"]
            if n == count - 1:
                choice |= routing
            yield f"data: {json.dumps({'id': answer['id'], 'choices': [choice], **usage})}\n\n".encode()
            if n == 0 and asked.get("wait"):
                await asyncio.to_thread(self.gate.wait, 30)
        if usage:
            yield f"data: {json.dumps({'id': answer['id'], 'choices': [], 'usage': answer['usage']})}\n\n".encode()
        yield b"data: [DONE]\n\n"

    async def generate(self, request: Request) -> Response:
        asked = await request.json()
        self.seen.append(asked)
        answer = captures.sglang(self.made)[int(asked["text"].split()[-1])]
        if not asked.get("return_routed_experts"):
            del answer["meta_info"]["routed_experts"]
        return JSONResponse(answer)


def kept(tmp_path: Path, made: captures.Served) -> Keeper:
    return Keeper(tmp_path / "a.duckdb", read_model(made.saved(tmp_path)), "engine", lambda text: None)


def through(engine: Engine, keeper: Any, requests: list[dict[str, Any]], path: str = "/v1/completions", **more: Any) -> Any:
    """All of these at once, straight to the engine and through the door; both answers of each."""

    async def run() -> Any:
        direct = httpx.AsyncClient(transport=httpx.ASGITransport(engine.app()), base_url="http://engine", **more)
        door = Door("http://engine", keeper, transport=httpx.ASGITransport(engine.app())).app()
        async with direct, httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door", **more) as client:
            return await asyncio.gather(
                *(asyncio.gather(direct.post(path, json=r), client.post(path, json=r)) for r in requests)
            )

    return alone(run)


def alone(run: Any) -> Any:
    """What a coroutine gives, in a thread of its own: a browser's loop may run in this one."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(lambda: asyncio.run(run())).result()


def same(pairs: Any) -> None:
    for direct, door in pairs:
        assert door.status_code == direct.status_code
        assert (door.json() if "json" in door.headers["content-type"] else events(door.content)) == (
            direct.json() if "json" in direct.headers["content-type"] else events(direct.content)
        )


def events(content: bytes) -> list[Any]:
    found = [part.removeprefix(b"data: ") for part in content.split(b"\n\n") if part]
    return [part if part == b"[DONE]" else json.loads(part) for part in found]


def documents(store: Path) -> dict[str, int]:
    """{request: number of its sequence}."""
    with moescope.open(store) as opened:
        return {name.rpartition(":")[2]: n for name, n in opened.rows("select document, sequence from sequences")}


def in_order(store: Path, names: list[str]) -> list[tuple[Any, ...]]:
    """Rows with sequences numbered as `names`."""
    place = {number: names.index(name) for name, number in documents(store).items()}
    return sorted((place[row[0]], *row[1:]) for row in rows(store))


ASKS: list[dict[str, Any]] = [{}, {"return_routed_experts": True}, {"return_token_ids": True}]


@pytest.mark.parametrize("sglang", [False, True])
def test_answers_are_what_the_engine_gives_and_routing_is_kept(sglang: bool, tmp_path: Path) -> None:
    """Streaming and not, whether clients ask for routing, for ids, or for neither."""
    made = captures.served(n=6, dense=(0,))
    keeper = kept(tmp_path, made)
    asked = [{"prompt": f"say {i}", "model": "m", **({"stream": True} if i > 2 else {}), **ASKS[i % 3]} for i in range(6)]
    same(through(Engine(made, sglang), keeper, asked))
    keeper.close()
    assert (keeper.kept, keeper.lost, keeper.runs) == (6, 0, [0])
    names = [f"{'chat' if sglang else 'cmpl'}-{i}" for i in range(6)]
    alike(in_order(tmp_path / "a.duckdb", names), sorted(expected(made.sequences, made.routed)))


def test_200_at_once_streaming_and_not(tmp_path: Path) -> None:
    made = captures.served(n=20, longest=12)
    keeper, engine = kept(tmp_path, made), Engine(made)
    asked = [{"prompt": f"say {i % 20}", "model": "m", "stream": bool(i % 2)} for i in range(200)]
    same(through(engine, keeper, asked, timeout=60))
    keeper.close()
    assert (keeper.kept, keeper.lost) == (200, 0)
    with moescope.open(tmp_path / "a.duckdb") as store:
        found = store.rows("select document, count(*) from sequences group by 1")
        assert sorted(n for _, n in found) == [10] * 20
        decisions = sum(len(made.sequences[i % 20].experts) * 4 for i in range(200))
        assert store.rows("select decisions, status from runs") == [(decisions, "complete")]


def test_what_is_kept_of_a_request_is_its_text_and_label_alone(tmp_path: Path) -> None:
    made = captures.served(n=1)
    keeper, engine = kept(tmp_path, made), Engine(made)
    headers = {"authorization": "Bearer secret", "X-Moescope-Label": "domain=code, run=7"}
    through(engine, keeper, [{"prompt": "say 0", "model": "m", "user": "anna"}], headers=headers)
    keeper.close()
    assert "x-moescope-label" not in engine.headers[1]
    assert engine.headers[1]["authorization"] == "Bearer secret"
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select text, domain from sequences") == [("say 0", "code")]
        assert store.rows("select kind, label from sequence_labels order by 1") == [("domain", "code"), ("run", "7")]
    whole = (tmp_path / "a.duckdb").read_bytes()
    assert b"secret" not in whole
    assert b"anna" not in whole


def test_generate_of_sglang(tmp_path: Path) -> None:
    made = captures.served(n=2)
    keeper = kept(tmp_path, made)
    same(through(Engine(made), keeper, [{"text": f"say {i}"} for i in range(2)], "/generate"))
    keeper.close()
    alike(in_order(tmp_path / "a.duckdb", ["rid-0", "rid-1"]), sorted(expected(made.sequences, made.routed)))


def test_an_engine_that_knows_no_such_field_is_asked_once_and_answers_as_ever(tmp_path: Path) -> None:
    made = captures.served(n=1)
    keeper, engine = kept(tmp_path, made), Engine(made, strict=True)

    async def run() -> list[Any]:
        door = Door("http://engine", keeper, transport=httpx.ASGITransport(engine.app())).app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as client:
            return [await client.post("/v1/completions", json={"prompt": "say 0"}) for _ in range(2)]

    answers = alone(run)
    assert [a.json()["text"] for a in answers] == ["answer 0"] * 2
    assert ["return_routed_experts" in asked for asked in engine.seen] == [True, False, False]
    keeper.close()
    assert keeper.runs == []


class Broken:
    """A keeper whose store fails."""

    def __init__(self, folder: Path, made: captures.Served) -> None:
        (folder / "a.duckdb").mkdir()
        self.said: list[str] = []
        self.keeper = Keeper(folder / "a.duckdb", read_model(made.saved(folder)), "engine", self.said.append)


def test_a_store_that_fails_fails_no_request(tmp_path: Path) -> None:
    made = captures.served(n=3)
    broken = Broken(tmp_path, made)
    same(through(Engine(made), broken.keeper, [{"prompt": f"say {i}"} for i in range(3)]))
    broken.keeper.close()
    assert (broken.keeper.kept, broken.keeper.lost) == (0, 3)
    assert any("requests go on" in text for text in broken.said)


def test_an_answer_that_cannot_be_is_not_kept_and_the_others_are(tmp_path: Path) -> None:
    made = captures.served(n=3)
    made.sequences[1].experts[:] = 0
    keeper = kept(tmp_path, made)
    same(through(Engine(made), keeper, [{"prompt": f"say {i}"} for i in range(3)]))
    keeper.close()
    assert (keeper.kept, keeper.lost) == (2, 1)
    assert sorted(documents(tmp_path / "a.duckdb")) == ["cmpl-0", "cmpl-2"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_everything_else_passes(method: str, tmp_path: Path) -> None:
    class Nothing:
        def keep(self, answer: Any) -> None:
            raise AssertionError

    async def echo(request: Request) -> Response:
        body = (await request.body()).decode()
        return Response(f"{request.method} {request.url.path} {request.url.query} {body}", 201, {"x-own": "yes"})

    engine = Starlette(routes=[Route("/{path:path}", echo, methods=[method])])

    async def run() -> Any:
        door = Door("http://engine", Nothing(), transport=httpx.ASGITransport(engine)).app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as client:
            return await client.request(method, "/v1/models?a=b%20c", content=b"x y" if method == "POST" else None)

    answer = alone(run)
    assert (answer.status_code, answer.headers["x-own"]) == (201, "yes")
    assert answer.text == f"{method} /v1/models a=b%20c {'x y' if method == 'POST' else ''}"


def test_an_engine_that_is_not_there_is_said(tmp_path: Path) -> None:
    async def run() -> Any:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        door = Door(f"http://127.0.0.1:{port}", None).app()  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as client:
            return await client.post("/v1/completions", json={"prompt": "x"})

    answer = alone(run)
    assert answer.status_code == 502
    assert "is the engine running there?" in answer.json()["error"]["message"]


@contextmanager
def running(app: Any) -> Iterator[str]:
    """An application on a free port, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def test_events_come_while_the_engine_still_thinks(tmp_path: Path) -> None:
    """Over real sockets: the first event is there before the engine makes the second."""
    made = captures.served(n=1)
    keeper, engine = kept(tmp_path, made), Engine(made)
    with running(engine.app()) as upstream, running(Door(upstream, keeper).app()) as url:
        asked = {"prompt": "say 0", "stream": True, "wait": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=asked, timeout=30, trust_env=False) as answer:
            pieces = answer.iter_raw()
            first = next(pieces)
            assert json.loads(first.removeprefix(b"data: "))["choices"][0]["text"] == "w0"
            engine.gate.set()
            rest = b"".join(pieces)
    assert events(rest)[-1] == b"[DONE]"
    assert b"routed_experts" not in first + rest
    keeper.close()
    alike(rows(tmp_path / "a.duckdb"), expected(made.sequences, made.routed))
