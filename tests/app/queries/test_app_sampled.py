"""Large runs are counted on whole sequences, everywhere alike; and what was chosen in another text is chosen no more."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pages import nothing, opened, part, rows, same, view
from recounted import EXPERTS, Truth, ran

TRUTH = Truth()
RUN = {"run": 0, "tokens": len(TRUTH.tokens) // 2, "decisions": len(TRUTH.of(0)), "model": 0, "capture": None}


@pytest.fixture
def sampled(recounted_shown: None, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """As if the run were large; the sequences that are then counted."""
    sampling, store = part("queries.sampling"), part("queries.store_access")
    monkeypatch.setattr(sampling, "EXACT", 10)
    monkeypatch.setattr(sampling, "EVERY", 100 * 7)  # seven assignments of a token
    condition, kept = sampling.filter_sql(RUN, 100, 1, "t.")
    assert 0 < kept < 1
    return set(store.frame(f"select distinct sequence from tokens t where run = 0{condition}")["sequence"])


def test_loads_are_of_whole_sequences(sampled: set[int]) -> None:
    frame, _, _, kept = part("queries.loads").of(RUN, "share", None, "first token")
    assert 0 < kept < 1
    expected = []
    for router, stack, layer in ((1, "decoder", 0), (2, "decoder", 1), (3, "decoder", 2), (0, "encoder", 0)):
        here = [d for d in TRUTH.of(0, router) if d.of.sequence in sampled and d.of.position == 0]
        expected += [(stack, layer, router, e, ran(here, e), ran(here, e) / ran(here)) for e in range(EXPERTS)]
    same(rows(frame, "stack", "layer", "router", "expert", "assignments", "share"), expected)


def test_paths_are_of_whole_sequences(sampled: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest one with its interval, and as many as if layers were independent, of the same tokens."""
    structure, shown = view("structure"), []
    monkeypatch.setattr(structure, "AMONG", 100)
    monkeypatch.setattr(structure.panels, "cards", shown.extend)
    monkeypatch.setattr(structure.url_state, "row", lambda frame, *_, **__: shown.append(frame))
    structure.paths.__wrapped__(RUN, next(x for x in part("parts.pickers").layers(0) if x.router == 2))
    found: dict[int, list[str]] = {}
    for d in sorted(TRUTH.of(0, stack="decoder"), key=lambda d: (d.of.token, d.layer)):
        if d.of.sequence in sampled:
            found.setdefault(d.of.token, []).append(str(d.first))
    counts = Counter(" → ".join(way) for way in found.values())
    assert shown[0][:3] == ("Different paths", f"{len(counts)}", f"taken by {len(found)} tokens")
    top = sorted(counts.items(), key=lambda x: (-x[1], x[0]))[0]
    same(rows(shown[-1].head(1), "path", "tokens", "share"), [(*top, top[1] / len(found))])


def test_labels_are_found_in_whole_sequences(sampled: set[int]) -> None:
    finding = part("queries.expert.finding")
    found = finding.find(RUN, "NOUN")[0]
    for row in found.itertuples():
        mine = [d for d in TRUTH.of(0, row.router) if d.of.sequence in sampled and d.of.upos == "NOUN"]
        assert (row.tokens, row.here) == (len(mine), ran(mine, row.expert))
    assert len(found) > 0


@pytest.mark.parametrize("query", [{"q": "d5"}, {"sequence": "7"}, {"domain": "domain=prose"}, {"sequence": "7", "q": "d3"}])
def test_a_route_goes_with_its_text(query: dict[str, Any], recounted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever found another text: the token of the text before is chosen no more, and its route is not shown."""
    decoder = next(t.token for t in TRUTH.tokens if t.sequence == 1)  # of a code text in d0
    page = opened(recounted_store, "tokens", monkeypatch, run="0", layer="decoder 1", token=str(decoder), **query)
    assert "token" not in page.query_params
    assert not any('class="ms-route"' in h.proto.body for h in page.get("html"))
    assert nothing(page) == []
    page = opened(recounted_store, "tokens", monkeypatch, run="0", layer="decoder 1", token=str(decoder))
    assert page.query_params["token"] in (str(decoder), [str(decoder)])
    assert any('class="ms-route"' in h.proto.body for h in page.get("html"))
