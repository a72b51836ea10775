"""Several rows for each text: beams and returned sequences of two documents stay with their document, in the rows' order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids, mixtral
from stored_sequences import texts, traced

from moescope.store import Store
from moescope.tracer import SequenceInfo

INFOS = [
    SequenceInfo(f"{name}.txt", row, 0, name, text=name * 3, labels={"domain": name, "genre": f"of {name}"}, words=range(4),
                 word_labels=[{"form": f"{name}{n}"} for n in range(4)])
    for row, name in ((7, "a"), (9, "b"))
]  # fmt: skip


def generated(path: Path, rows: int, **settings: Any) -> Store:
    model = mixtral()
    model.generation_config.eos_token_id = None
    x = ids(2, 4)
    torch.manual_seed(0)

    def run(tracer: Any) -> None:
        with tracer.batch(INFOS):
            model.generate(x, max_new_tokens=3, pad_token_id=0, **settings)

    store = traced(path, model, run)
    assert [text[:4] for text in texts(store)] == [row for row in x.tolist() for _ in range(rows)]
    return store


@pytest.mark.parametrize(
    ("rows", "settings"),
    [(1, {"do_sample": False}), (3, {"num_beams": 3, "do_sample": False}), (2, {"num_return_sequences": 2, "do_sample": True}),
     (4, {"num_beams": 4, "num_return_sequences": 2, "do_sample": False})],
)  # fmt: skip
def test_rows_of_two_documents(tmp_path: Path, rows: int, settings: dict[str, Any]) -> None:
    store = generated(tmp_path / "a.duckdb", rows, **settings)
    expected = [(f"{n}.txt", row, n, beam, n, n * 3, 4) for row, n in ((7, "a"), (9, "b")) for beam in range(rows)]
    found = store.rows("select source, source_row, document, beam, domain, text, tokens from sequences order by sequence")
    assert found == expected
    labels = store.rows("select kind, label from sequence_labels order by sequence, kind")
    assert labels == [row for _, _, n, *_ in expected for row in (("domain", n), ("genre", f"of {n}"))]
    forms = store.rows(
        "select s.document, s.beam, t.position, l.label from tokens t join sequences s using (sequence) "
        "join token_labels l using (token) where l.kind = 'form' order by s.sequence, t.position"
    )
    assert forms == [(n, beam, place, f"{n}{place}") for _, _, n, beam, *_ in expected for place in range(4)]


def test_beams_keep_their_own_history(tmp_path: Path) -> None:
    """The parent of a token is the one before it in its own hypothesis, of the same document."""
    store = generated(tmp_path / "a.duckdb", 3, num_beams=3, do_sample=False)
    rows = store.rows(
        "select s.document, p.document, t.position - q.position from tokens t join sequences s using (sequence) "
        "join tokens q on q.token = t.parent join sequences p on p.sequence = q.sequence"
    )
    assert rows
    assert {(a == b, step) for a, b, step in rows} == {(True, 1)}


def test_several_tokens_after_rows_changed_places(tmp_path: Path) -> None:
    """The first follows the last of its own hypothesis, which stood in the other row; the others follow each other."""
    model, x = mixtral(), ids(2, 6)

    def run(_: Any) -> None:
        cache = model(x[:, :3], use_cache=True).past_key_values
        cache.reorder_cache(torch.tensor([1, 0]))
        model(x[:, 3:], past_key_values=cache)

    store = traced(tmp_path / "a.duckdb", model, run)
    key = {(s, p): t for s, p, t in store.rows("select sequence, position, token from tokens")}
    found = {(s, p): parent for s, p, parent in store.rows("select sequence, position, parent from tokens where position > 2")}
    assert found == {(s, p): key[1 - s, 2] if p == 3 else key[s, p - 1] for s in (0, 1) for p in (3, 4, 5)}
