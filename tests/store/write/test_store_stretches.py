"""Stretches that get their places: keys, unnamed documents and pictures are those that one process would have written."""

from pathlib import Path
from typing import Any

import moescope
from moescope.store.write.many.stretches import Gathering, StretchWriter

ROUTERS = [{"router": 0, "name": "r", "layer": 0, "stack": "decoder", "experts": 2, "top_k": 1, "kind": "token_choice"}]
HEAD: dict[str, Any] = {
    "run": {"name": "x", "started": "2026-01-01 00:00:00", "capture": {"pictures": 4}},
    "model": {"name": "m", "weights_sha256": "0"},
    "routers": ROUTERS,
    "experts": [{"router": 0, "expert": e, "role": "routed"} for e in (0, 1)],
}


def make(writer: StretchWriter, place: Path, number: int, named: str | None) -> None:
    """Two sequences of three tokens, and three pictures; keys foretold as if nothing were before it."""
    writer.begin(not number, {})
    sequence, token = writer.take("sequence", 2), writer.take("token", 3)
    forward = writer.take("forward", 1)
    documents = [named or writer.document(sequence), writer.document(sequence + 1)]
    writer.add("sequences", {"sequence": [sequence, sequence + 1], "document": documents, "tokens": [2, 1]})
    tokens = [token, token + 1, token + 2]
    owners = [sequence, sequence, sequence + 1]
    writer.add("tokens", {"token": tokens, "sequence": owners, "position": [0, 1, 0], "parent": [None, token, None]})
    writer.add("forwards", {"forward": [forward], "tokens": [3]})
    writer.add("routes_1", {"router": [0] * 3, "forward": [forward] * 3, "token": tokens, "e0": [0, 1, 1]})
    writer.add("pictures", {"sequence": [sequence] * 3, "medium": [f"image {number}"] * 3, "frame": [0, 1, 2]})
    writer.finish(place, {"batches": number + 1, "sequences": 2 * (number + 1), "resume": {"steps": 1, "fired": [0]}})


def test_what_was_made_in_any_order_lies_in_the_order_of_the_data(tmp_path: Path) -> None:
    gathering = Gathering.create(tmp_path / "s.duckdb", HEAD)
    assert isinstance(gathering, Gathering)
    run, writer = gathering.assign(1), StretchWriter(HEAD)
    writer.add("measures", {"name": ["of the model"], "value": [1.0]})  # at attach
    for number, name in ((2, None), (0, "7"), (1, None)):
        make(writer, run.place(number), number, name)
        assert run.has(number)
    assert gathering.seal() == 3
    assert [run.has(number) for number in range(4)] == [True, True, True, False]
    gathering.close({"status": "complete"}, gathering.said)
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert store.rows("select sequence, document from sequences order by 1") == [
            (0, "7"), (1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5"),
        ]  # fmt: skip
        assert store.rows("select token, sequence, parent from tokens order by 1") == [
            (0, 0, None), (1, 0, 0), (2, 1, None), (3, 2, None), (4, 2, 3), (5, 3, None), (6, 4, None), (7, 4, 6), (8, 5, None),
        ]  # fmt: skip
        assert store.rows("select forward, token, expert from assignments order by all") == [
            (0, 0, 0), (0, 1, 1), (0, 2, 1), (1, 3, 0), (1, 4, 1), (1, 5, 1), (2, 6, 0), (2, 7, 1), (2, 8, 1),
        ]  # fmt: skip
        kept = store.rows("select sequence, medium, frame from pictures order by all")
        assert kept == [(0, "image 0", 0), (0, "image 0", 1), (0, "image 0", 2), (2, "image 1", 0)]
        assert store.rows("select name, value from measures") == [("of the model", 1.0)]
        assert store.rows("select forwards, sequences, tokens, decisions, assignments from runs") == [(3, 6, 9, 9, 9)]
