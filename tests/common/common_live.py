"""A live model asked, and what its run and a plain trace are compared by: every row, without what tells two runs apart."""

import json
import threading
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import moescope
from moescope.store.write.many.moved import join_packed

TOKEN = "sesame"
Events = list[dict[str, Any]]

ROWS = {
    "tokens": "select s.stack, t.position, t.vocab_id, t.generated, t.special, t.unit, t.x, t.y "
    "from tokens t join sequences s using (sequence) order by all",
    "assignments": "select r.name, f.phase, f.step, s.stack, t.position, a.iteration, a.rank, a.slot, a.expert, a.weight, "
    "a.dropped, a.buffer_position from assignments a join routers r using (router) join tokens t using (token) "
    "join sequences s on s.sequence = t.sequence join forwards f on f.forward = a.forward order by all",
    "decisions": "select r.name, t.position, s.stack, d.iteration, d.entropy, d.margin, d.log_sum_exp from decisions d "
    "join routers r using (router) join tokens t using (token) join sequences s on s.sequence = t.sequence order by all",
    "logits": "select r.name, t.position, s.stack, l.iteration, l.logits from logits l join routers r using (router) "
    "join tokens t using (token) join sequences s on s.sequence = t.sequence order by all",
    "labels": "select s.stack, t.position, l.kind, l.label from token_labels l join tokens t using (token) "
    "join sequences s using (sequence) order by all",
    "vocab": "select vocab_id, text from vocab order by all",
    "runs": "select status, dataset, dataset_sha256, overrides, seed, forwards, sequences, tokens, decisions, assignments "
    "from runs",
}


def rows_of(store: Path) -> dict[str, list[Any]]:
    """Every row of a store's one run that is not about time and place."""
    with moescope.open(store) as opened:
        return {name: opened.rows(sql) for name, sql in ROWS.items()}


def told_of(events: list[dict[str, Any]], routers: list[dict[str, Any]]) -> list[Any]:
    """Assignments as events tell them: (router, position, rank, expert, weight, dropped), sorted."""
    names = {row["router"]: row["name"] for row in routers}
    tokens = {t["token"]: (t["sequence"], t["position"]) for event in events for t in event.get("tokens", [])}
    return sorted(
        (names[d["router"]], *tokens[d["token"]], rank, expert, round(weight, 6), gone)
        for event in events
        for d in event.get("decisions", [])
        for rank, (expert, weight, gone) in enumerate(zip(d["experts"], d["weights"], d["dropped"], strict=True))
    )


def stored(store: Path) -> list[Any]:
    """The same of a store."""
    with moescope.open(store) as opened:
        found = opened.rows(
            "select r.name, t.sequence, t.position, a.rank, a.expert, a.weight, a.dropped from assignments a "
            "join routers r using (router) join tokens t using (token)"
        )
    return sorted((name, s, p, rank, e, round(w, 6), gone) for name, s, p, rank, e, w, gone in found)


def run(client: TestClient, **asked: Any) -> Events:
    """The events of a prompt."""
    said = client.post("/run", content=json.dumps(asked))
    assert said.status_code == 200, said.text
    return [json.loads(piece[6:]) for piece in said.text.split("\n\n") if piece.startswith("data: ")]


def kept(client: TestClient, events: Events, store: Path) -> Path:
    """A store with the run that they are of."""
    assert events[-1]["event"] == "end", events[-1]
    join_packed(store, client.get(f"/runs/{events[-1]['run']}").content)
    return store


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
