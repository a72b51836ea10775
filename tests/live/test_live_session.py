"""What a live model tells and what is kept of it is what a trace of the same records, changed experts included.

Traced is with hold=1, as the live one is: summaries of forwards that are stacked differ in their last bit.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from common_live import rows_of, stored, told_of
from PIL import Image
from starlette.testclient import TestClient

import moescope
from moescope.cli import main
from moescope.contracts import find
from moescope.errors import InputError, StoreError
from moescope.interventions import Bias, Force, RouteAround, Weigh, intervene, overrides
from moescope.live.asked import Asked, read_asked
from moescope.live.changes import edits_of
from moescope.live.desk import Desk
from moescope.live.endpoint import Endpoint, answers
from moescope.store.write.moved import join_packed
from moescope.tracer import Tracer, trace

TEXT = "The chosen experts of the first layer were found in the end"
NAMES = ["mixtral", "switch", "vmoe"]
TOKEN = "sesame"
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    made = Desk(NAMES)
    yield made
    folder = made.folder
    made.close()
    assert not folder.exists()


@pytest.fixture(scope="module")
def client(desk: Desk) -> TestClient:
    return TestClient(answers(desk, TOKEN), headers={"authorization": f"Bearer {TOKEN}"})


@pytest.fixture(scope="module")
def loaded(desk: Desk) -> Callable[[str], Any]:
    """The desk's own models, which are idle while they are traced."""

    def of(name: str) -> Any:
        while desk.about(name)["state"] == "loading":
            time.sleep(0.02)
        return desk.ready[name].loaded

    return of


def run(client: TestClient, **asked: Any) -> Events:
    said = client.post("/run", content=json.dumps(asked))
    assert said.status_code == 200, said.text
    return [json.loads(piece[6:]) for piece in said.text.split("\n\n") if piece.startswith("data: ")]


def kept(client: TestClient, events: Events, store: Path) -> Path:
    assert events[-1]["event"] == "end", events[-1]
    join_packed(store, client.get(f"/runs/{events[-1]['run']}").content)
    return store


def picture() -> bytes:
    held = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 255, (28, 28)).astype(np.uint8)
    Image.fromarray(pixels).save(held, "png")
    return held.getvalue()


@pytest.mark.parametrize("name", ["mixtral", "switch"])
def test_a_live_run_is_the_trace_of_its_text(name: str, client: TestClient, loaded: Any, tmp_path: Path) -> None:
    events = run(client, model=name, text=TEXT, tokens=6)
    store = kept(client, events, tmp_path / "live.duckdb")
    trace(loaded(name), [TEXT], tmp_path / "plain.duckdb", generate=6, logits=1.0, hold=1)
    assert rows_of(store) == rows_of(tmp_path / "plain.duckdb")
    about = client.get("/about", params={"model": name}).json()
    assert told_of(events, about["routers"]) == stored(store)
    made = [event["next"]["chosen"]["id"] for event in events if event["event"] == "tokens"]
    with_ids = [token["vocab_id"] for event in events for token in event.get("tokens", []) if token["generated"]]
    assert made[:-1] == with_ids[: len(made) - 1]
    assert len(made) <= 6


TALK = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def test_a_turn_of_a_chat_is_the_trace_of_its_conversation(
    client: TestClient, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded("mixtral").tokenizer, "chat_template", TALK)
    assert client.get("/about", params={"model": "mixtral"}).json()["chat"]
    turns = [{"role": "user", "content": "Who runs here?"}]
    events = run(client, model="mixtral", messages=turns, tokens=3)
    store = kept(client, events, tmp_path / "live.duckdb")
    trace(loaded("mixtral"), [turns], tmp_path / "plain.duckdb", generate=3, logits=1.0, hold=1)
    assert rows_of(store) == rows_of(tmp_path / "plain.duckdb")
    roles = {row["label"] for event in events for row in event.get("labels", []) if row["kind"] == "role"}
    assert roles == {"template", "user", "assistant"}
    assert events[-1]["command"] == ["moescope", "try", "mixtral", "--messages", json.dumps(turns), "--tokens", "3"]


def test_a_picture_is_the_trace_of_it_alone(client: TestClient, loaded: Any, tmp_path: Path) -> None:
    events = run(client, model="vmoe", image=base64.b64encode(picture()).decode(), picture="a.png")
    store = kept(client, events, tmp_path / "live.duckdb")
    (tmp_path / "a.png").write_bytes(picture())
    trace(loaded("vmoe"), tmp_path / "a.png", tmp_path / "plain.duckdb", overrides={"group_size": "batch"}, logits=1.0, hold=1)
    live, plain = rows_of(store), rows_of(tmp_path / "plain.duckdb")
    assert {name: rows for name, rows in live.items() if name != "runs"} == {n: r for n, r in plain.items() if n != "runs"}
    assert [row[3:] for row in live["runs"]] == [row[3:] for row in plain["runs"]]  # the data are a file there
    classes = next(event["next"]["classes"] for event in events if event["event"] == "tokens")
    assert sorted(classes, key=lambda c: -c[2]) == classes
    assert events[-1]["command"] == ["moescope", "try", "vmoe", "--image", "a.png"]


def test_changed_experts_are_the_interventions_own(client: TestClient, loaded: Any, tmp_path: Path) -> None:
    texts = ["2:5=off", "2:1=off", "decoder.0:3=forced", "1:0=+2.5", "1:4=-1", "model.layers.3.mlp.gate:7=x0.25"]
    gate = "model.layers.{}.mlp.gate".format
    edits = [
        Force(router=gate(0), experts=[3]),
        Bias(router=gate(1), added={0: 2.5, 4: -1.0}),
        RouteAround(router=gate(2), experts=[1, 5]),
        Weigh(router=gate(3), factors={7: 0.25}),
    ]
    store = kept(client, run(client, model="mixtral", text=TEXT, tokens=5, edits=texts), tmp_path / "live.duckdb")
    here = loaded("mixtral")
    ids = {name: here.tokenizer(TEXT, return_tensors="pt")[name] for name in ("input_ids", "attention_mask")}
    tracer = Tracer(here.model, tmp_path / "own.duckdb", tokenizer=here.tokenizer, logits=1.0, hold=1)
    with tracer, torch.no_grad(), intervene(here.model, *edits):
        here.model.generate(**ids, max_new_tokens=5, do_sample=False)
    live, own = rows_of(store), rows_of(tmp_path / "own.duckdb")
    for table in ("tokens", "assignments", "decisions", "logits"):
        assert live[table] == own[table], table
    assert json.loads(live["runs"][0][3]) == overrides(*edits)


def test_the_command_that_is_shown_does_it_again(client: TestClient, tmp_path: Path) -> None:
    events = run(client, model="mixtral", text="-- it's", tokens=3, edits=["2:5=off", "1:4=-1"], name="a name")
    store = kept(client, events, tmp_path / "live.duckdb")
    command = events[-1]["command"]
    assert command[:3] == ["moescope", "try", "mixtral"]
    done = CliRunner().invoke(main, ["try", "mixtral", "--store", str(tmp_path / "again.duckdb"), *command[3:]])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith(f"run 0 of {tmp_path / 'again.duckdb'}")
    assert rows_of(store) == rows_of(tmp_path / "again.duckdb")
    with moescope.open(tmp_path / "again.duckdb") as opened:
        ((name, said),) = opened.rows("select name, command from runs")
    assert (name, json.loads(said)) == ("a name", command)


SERVED = [
    (["mixtral", "--port", "8000"], ["mixtral"]),
    (["model", "mixtral"], ["mixtral"]),
    (["--shipped", "./x"], ["./x", "mixtral", "switch", "switch-collapsed", "vmoe"]),
]


@pytest.mark.parametrize(("arguments", "names"), SERVED)
def test_serve_takes_a_model(arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("moescope.live.serve.serve", lambda make, *more: told.append((make(), *more)))
    monkeypatch.setattr("moescope.live.desk.Desk", lambda names, *_: names)
    done = CliRunner().invoke(main, ["serve", *arguments])
    assert done.exit_code == 0, done.output
    ((served, host, port, token, _, idle),) = told
    assert (served, host, port, idle) == (names, "127.0.0.1", 8000 if "--port" in arguments else 0, None)
    assert len(token) > 20


@pytest.mark.parametrize(
    ("text", "kind"), [("1:0=off", "RouteAround"), ("1:0=forced", "Force"), ("1:0=-3", "Bias"), ("1:0=x0", "Weigh")]
)
def test_every_way_to_change_an_expert_has_its_edit(text: str, kind: str, loaded: Any) -> None:
    assert [type(edit).__name__ for edit in edits_of(find(loaded("mixtral").model), [text])] == [kind]


def logits_of(desk: Desk, events: Events) -> dict[int, np.ndarray]:
    """Of the first router, by token."""
    (file,) = desk.runs[events[-1]["run"]].files("logits")
    rows = pq.read_table(file).to_pylist()
    return {row["token"]: np.array(row["logits"]) for row in rows if row["router"] == 0}


def weights_of(events: Events) -> dict[int, dict[int, float]]:
    """Of the first router, by token and expert."""
    found = [d for event in events for d in event.get("decisions", []) if d["router"] == 0]
    return {d["token"]: dict(zip(d["experts"], d["weights"], strict=True)) for d in found}


def test_a_bias_is_added_to_the_logits_and_a_factor_to_the_weights(client: TestClient, desk: Desk) -> None:
    plain, biased, weighed = (
        run(client, model="mixtral", text=TEXT, tokens=1, edits=edits) for edits in ([], ["0:3=+2"], ["0:2=x0.5"])
    )
    before, after = logits_of(desk, plain), logits_of(desk, biased)
    assert len(before) == len(after) > 10
    for token, logits in after.items():  # softmax over all, the best two renormalized: Mixtral's own rule
        assert np.allclose(logits - before[token], np.eye(8)[3] * 2, atol=1e-5)
        best = np.argsort(-logits)[:2]
        powers = np.exp(logits[best])
        assert list(weights_of(biased)[token]) == best.tolist()
        assert list(weights_of(biased)[token].values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)
    halved = {
        t: {e: pytest.approx(w * (0.5 if e == 2 else 1), abs=2e-6) for e, w in some.items()}
        for t, some in weights_of(plain).items()
    }
    assert weights_of(weighed) == halved
    assert any(2 in some for some in weights_of(plain).values())


def test_a_text_is_scored_under_the_same_changes(client: TestClient, loaded: Any) -> None:
    here, change = loaded("mixtral"), RouteAround(router="model.layers.2.mlp.gate", experts=[2])
    first = run(client, model="mixtral", text=TEXT, tokens=4)
    ids = [t["vocab_id"] for e in first for t in e.get("tokens", [])] + [first[-2]["next"]["chosen"]["id"]]
    scores = run(client, model="mixtral", text=TEXT, tokens=1, edits=["2:2=off"], score=ids)[-1]["scores"]
    same = run(client, model="mixtral", text=TEXT, tokens=1, score=ids)[-1]["scores"]
    with torch.no_grad(), intervene(here.model, change):
        log_p = torch.log_softmax(here.model(input_ids=torch.tensor([ids])).logits[0].float(), -1)
    assert scores[0] is None
    assert scores[1:] == pytest.approx([float(log_p[n, i]) for n, i in enumerate(ids[1:])], abs=2e-5)
    said = [e["next"]["chosen"]["log_p"] for e in first if e["event"] == "tokens"]
    assert same[-4:] == pytest.approx(said, abs=1e-4)
    assert sum(scores[-4:]) != pytest.approx(sum(said), abs=1e-3)


def test_what_a_router_ranks_next_is_behind_what_ran(client: TestClient) -> None:
    for event in run(client, model="mixtral", text=TEXT, tokens=2):
        for d in event.get("decisions", []):
            assert [e for e, _ in d["ranked"][:2]] == d["experts"]
            assert [v for _, v in d["ranked"]] == sorted((v for _, v in d["ranked"]), reverse=True)


REFUSED = {
    "empty": ({"text": "  "}, "the prompt is empty"),
    "long": ({"text": "a " * 600, "tokens": 4}, "the prompt has 602 tokens, and mixtral takes 508"),
    "no room": ({"text": "a", "tokens": 512}, "leave no room for a prompt"),
    "layer": ({"text": "a", "edits": ["9:0=off"]}, "no router in layer 9"),
    "expert": ({"text": "a", "edits": ["2:8=off"]}, "has no expert 8: its experts are 0 to 7"),
    "words": ({"text": "a", "edits": ["2:1=louder"]}, "is no change of an expert"),
    "number": ({"text": "a", "edits": ["2:1=+1.2.3"]}, "is no number"),
    "twice": ({"text": "a", "edits": ["2:1=off", "2:1=forced"]}, "is changed twice"),
    "all off": ({"text": "a", "edits": [f"2:{e}=off" for e in range(7)]}, "leave at least 2"),
    "forced": ({"text": "a", "edits": [f"2:{e}=forced" for e in range(3)]}, "force at most 2"),
    "score": ({"text": "a", "tokens": 1, "score": [1, 99999]}, "ids that mixtral has not"),
    "text for a picture": ({"model": "vmoe", "text": "a"}, "looks at pictures"),
    "no picture": ({"model": "vmoe", "image": "aGVsbG8="}, "not an image that Pillow can read"),
    "picture for a text": ({"image": "aGVsbG8="}, "say what is asked of the picture"),
    "no chat": ({"messages": [{"role": "user", "content": "a"}]}, "is a conversation, but the tokenizer has no chat template"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_done_is_one_sentence(kind: str, client: TestClient, desk: Desk) -> None:
    asked, sentence = REFUSED[kind]
    events = run(client, **({"model": "mixtral"} | asked))
    assert [e["event"] for e in events if e["event"] != "waits"][-1] == "refused"
    assert sentence in events[-1]["sentence"]
    assert "\n" not in events[-1]["sentence"]
    parts = [
        p for p in (desk.folder / "live.duckdb.parts").glob("*") if p.name not in {r.path.name for r in desk.runs.values()}
    ]
    assert parts == []


BAD = {
    "no json": "{", "no object": "[]", "a field": '{"tekst": "a"}', "tokens": '{"tokens": 0}', "many": '{"tokens": 9999}',
    "edits": '{"edits": "2:5=off"}', "image": '{"image": "%%"}', "messages": '{"messages": [1]}', "model": '{"model": "gpt"}',
    "nested": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_request_that_is_none_is_refused(kind: str, client: TestClient) -> None:
    said = client.post("/run", content=BAD[kind])
    assert said.status_code == 400
    assert said.json()["sentence"].count("\n") == 0


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer sesam", "sesame"])
def test_without_the_token_nothing_is_told(token: str, desk: Desk) -> None:
    stranger = TestClient(answers(desk, TOKEN), headers={"authorization": token})
    assert [stranger.get(path).status_code for path in ("/about", "/runs/x")] == [403, 403]
    assert [stranger.post(path, content="{}").status_code for path in ("/run", "/stop/x")] == [403, 403]


class Told:
    """Events of a prompt, as they come to who asked."""

    def __init__(self) -> None:
        self.events: Events = []
        self.over, self.begun = threading.Event(), threading.Event()

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["event"] == "tokens":
            self.begun.set()
        if event["event"] in ("end", "refused"):
            self.over.set()


def test_others_wait_in_line_and_a_stop_stops(desk: Desk, tmp_path: Path) -> None:
    first, second = Told(), Told()
    one = desk.ask(Asked("mixtral", TEXT, tokens=300), first)
    desk.ask(Asked("mixtral", "Another", tokens=1), second)
    assert first.begun.wait(60)
    assert second.events[0] == {"event": "waits", "before": 1, "uid": second.events[0]["uid"]}
    assert desk.stop(one.uid)
    assert second.over.wait(60)
    assert first.events[-1]["why"] == "stopped"
    assert second.events[-1]["why"] == "done"
    assert {"event": "waits", "before": 0, "uid": second.events[0]["uid"]} in second.events
    chosen = sum("chosen" in event.get("next", {}) for event in first.events)
    assert 1 <= chosen < 300
    assert first.events[-1]["command"][-3:] == ["--tokens", str(chosen), TEXT]
    store = tmp_path / "stopped.duckdb"
    join_packed(store, desk.packed(first.events[-1]["run"]))
    assert [(row[0], row[5]) for row in rows_of(store)["runs"]] == [("complete", chosen)]
    assert not desk.stop(one.uid)


def test_who_is_stopped_while_waiting_leaves_the_line_at_once(desk: Desk) -> None:
    first, second, third = Told(), Told(), Told()
    one = desk.ask(Asked("mixtral", TEXT, tokens=300), first)
    two = desk.ask(Asked("mixtral", TEXT, tokens=300), second)
    assert first.begun.wait(60)
    assert desk.stop(two.uid)
    assert second.events[-1] == {"event": "refused", "sentence": "this prompt was stopped before its turn came"}
    assert not first.over.is_set()
    desk.stop(one.uid)
    desk.ask(Asked("mixtral", "Another", tokens=1), third)
    assert third.over.wait(60)
    assert [event["event"] for event in second.events if event["event"] != "waits"] == ["refused"]


def test_a_process_that_nobody_asks_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr("moescope.live.endpoint.os.kill", lambda *_: ended.set())
    monkeypatch.setattr(desk, "close", lambda: None)
    with TestClient(Endpoint(desk, TOKEN, idle=0.05).app()):
        assert ended.wait(10)


def test_of_who_leaves_nothing_stays(desk: Desk) -> None:
    told, next_one = Told(), Told()
    before = set(desk.runs)
    ticket = desk.ask(Asked("mixtral", TEXT, tokens=300), told)
    assert told.begun.wait(60)
    ticket.leave()
    desk.ask(Asked("mixtral", "Another", tokens=1), next_one)
    assert next_one.over.wait(60)
    assert told.events[-1]["event"] == "tokens"
    assert set(desk.runs) - before == {next_one.events[-1]["run"]}


def test_the_line_and_the_time_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "seconds", 0.0)
    told = Told()
    desk.ask(Asked("mixtral", TEXT, tokens=300), told)
    assert told.over.wait(60)
    assert told.events[-1]["why"] == "time"
    monkeypatch.setattr("moescope.live.desk.WAITING", 0)
    with pytest.raises(InputError, match="in line already"):
        desk.ask(Asked("mixtral", TEXT), Told())
    monkeypatch.setattr("moescope.live.desk.KEPT", 1)
    with pytest.raises(StoreError, match="not there any more"):
        desk.packed("0" * 12)


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    desk = Desk([str(tmp_path)])
    try:
        told = Told()
        desk.ask(Asked(str(tmp_path), "a"), told)
        assert told.over.wait(60)
        assert "is no model" in told.events[-1]["sentence"]
        assert desk.about("")["state"] == "failed"
        assert desk.about("")["sentence"] == told.events[-1]["sentence"]
    finally:
        desk.close()


def test_memory_that_runs_out_is_a_sentence_and_the_next_prompt_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    told, after = Told(), Told()
    with monkeypatch.context() as patched:
        patched.setattr("moescope.live.session.run_batch", full)
        desk.ask(Asked("mixtral", TEXT, tokens=2), told)
        assert told.over.wait(60)
    assert "there is not enough memory" in told.events[-1]["sentence"]
    desk.ask(Asked("mixtral", TEXT, tokens=2), after)
    assert after.over.wait(60)
    assert after.events[-1]["event"] == "end"


def test_changes_are_written_as_short_as_they_can_be(loaded: Any) -> None:
    from moescope.live.changes import place_of

    assert [place_of(s, x) for s in [find(loaded("mixtral").model)] for x in s] == ["0", "1", "2", "3"]
    assert [place_of(s, x) for s in [find(loaded("switch").model)] for x in s] == [
        "encoder.1",
        "encoder.3",
        "decoder.1",
        "decoder.3",
    ]
    assert len(edits_of(find(loaded("switch").model), ["1:0=off"])) == 2  # a layer of both stacks


def test_an_asked_conversation_keeps_its_messages() -> None:
    asked = read_asked(b'{"messages": [{"role": "user", "content": "Hi"}], "name": null}', "mixtral")
    assert asked == Asked("mixtral", messages=({"role": "user", "content": "Hi"},))
