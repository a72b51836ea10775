"""Who is served when, what is refused, and what stays: the desk behind a live model's endpoint."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from common_live import TOKEN, Told, rows_of, run
from starlette.testclient import TestClient

from moescope.contracts import find
from moescope.errors import InputError, StoreError
from moescope.live.asked import Asked, read_asked
from moescope.live.changes import edits_of
from moescope.live.desk import Desk
from moescope.live.endpoint import Endpoint, answers
from moescope.live.serve import serve
from moescope.store.write.many.moved import join_packed

TEXT = "The chosen experts of the first layer were found in the end"


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
    monkeypatch.setattr(desk, "close", lambda: None)
    with TestClient(Endpoint(desk, TOKEN, idle=0.05, end=ended.set).app()):
        assert ended.wait(10)


def test_a_model_that_cannot_be_loaded_is_not_served() -> None:
    told = list[str]()
    with ThreadPoolExecutor(1) as apart:  # from the event loop that browsers of other tests have in this thread
        served = apart.submit(serve, lambda: Desk(["nobody-here"], say=told.append), "127.0.0.1", 0, TOKEN, told.append)
    with pytest.raises(InputError, match="there is no model 'nobody-here': name a folder"):
        served.result()
    assert [address.rpartition(":")[0] for address in told] == ["http://127.0.0.1"]


def test_where_one_model_of_two_cannot_be_loaded_the_other_is_served() -> None:
    desk = Desk(["nobody-here", "mixtral"], say=lambda text: None)
    while desk.about("nobody-here")["state"] == "loading":
        time.sleep(0.02)
    assert (desk.about("nobody-here")["state"], desk.hopeless()) == ("failed", "")
    desk.close()


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
