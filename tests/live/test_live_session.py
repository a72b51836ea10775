"""What a live model tells and what is kept of it is what a trace of the same records, changed experts included.

Traced is with hold=1, as the live one is: summaries of forwards that are stacked differ in their last bit.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from common_live import Events, kept, rows_of, run, stored, told_of
from PIL import Image
from starlette.testclient import TestClient

import moescope
from moescope.cli import main
from moescope.contracts import find
from moescope.interventions import Bias, Force, RouteAround, Weigh, intervene, overrides
from moescope.live.changes import edits_of
from moescope.live.desk import Desk
from moescope.tracer import Tracer, trace

TEXT = "The chosen experts of the first layer were found in the end"


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
