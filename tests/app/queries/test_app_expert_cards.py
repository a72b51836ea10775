"""Experts as cards: tokens, labels, load and effects against a recount; sorted, searched, and what each says of itself."""

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from pages import opened, part
from recounted import DOMAINS, EXPERTS, WORDS, Truth, ran, written

from moescope import show
from moescope.show import expert_cards

TRUTH = Truth()
RUN = {"run": 0, "tokens": len(TRUTH.tokens) // 2, "model": 0}
TAGS = ["ADP", "DET", "NOUN", "VERB"]


def layer_of(router: int) -> Any:
    return next(x for x in part("parts.pickers").layers(0) if x.router == router)


@pytest.fixture
def shown(recounted_shown: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The queries, with labels of few tokens and documents as well."""
    monkeypatch.setattr(expert_cards, "LEAST", 1)
    monkeypatch.setattr(expert_cards, "SURE", 2)
    return part("queries.expert.expert_cards")


def surely(here: list[Any], of: Any, name: str, expert: int) -> tuple[float, float, float, float] | None:
    """Share, lift and its interval of one label, from residuals document by document; None where it is no preference."""
    mine = [[d for d in here if of(d) == name and d.of.document == f"d{n}"] for n in range(6)]
    mine = [m for m in mine if m]
    size, there = np.array([len(m) for m in mine], float), np.array([ran(m, expert) for m in mine], float)
    n, share = size.sum(), there.sum() / size.sum()
    half = 1.96 * np.sqrt(len(mine) / (len(mine) - 1) * ((there - share * size) ** 2).sum()) / n
    z = 1.96**2 / n
    middle, wide = (share + z / 2) / (1 + z), 1.96 * np.sqrt(share * (1 - share) / n + z / n / 4) / (1 + z)
    overall = ran(here, expert) / len(here)
    low, high = max(min(share - half, middle - wide), 0) / overall, min(max(share + half, middle + wide), 1) / overall
    return (share, share / overall, low, high) if low > 1 else None


@pytest.mark.parametrize("router", range(4))
def test_labels_of_every_expert(router: int, shown: Any) -> None:
    here = TRUTH.of(0, router)
    for card in shown.of(RUN, layer_of(router)):
        expected = []
        for kind, names, of in (("domain", DOMAINS, lambda d: d.of.domain), ("upos", TAGS, lambda d: d.of.upos)):
            found = [(kind, name, surely(here, of, name, card.expert)) for name in names] if ran(here, card.expert) else []
            expected += [(kind, name, *figures) for kind, name, figures in found if figures]
        expected.sort(key=lambda row: -row[4])
        assert [(b.kind, b.label) for b in card.labels] == [row[:2] for row in expected]
        figures = [(b.share, b.lift, b.low, b.high) for b in card.labels]
        assert figures == [pytest.approx(row[2:]) for row in expected]


@pytest.mark.parametrize("router", range(4))
def test_load_and_tokens_of_every_expert(router: int, shown: Any) -> None:
    here, facts = TRUTH.of(0, router), part("queries.expert.experts")
    for card in shown.of(RUN, layer_of(router)):
        e = card.expert
        asked = sum(x == e for d in here for x, _, _ in d.chosen)
        assert (card.assignments, card.dropped) == (ran(here, e), asked - ran(here, e))
        assert card.load == pytest.approx(ran(here, e) / ran(here))
        assert card.demand == pytest.approx(asked / sum(len(d.chosen) for d in here))
        low = facts.top_tokens(RUN, layer_of(router), e, 1.0)[0].set_index("text")["low"]
        assert low[card.words].round(9).is_monotonic_decreasing
        assert set(card.words) == {w for v, w in enumerate(WORDS) if ran([d for d in here if d.of.vocab == v], e)}


def test_summaries_are_of_measured_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.duckdb", TRUTH)
    effect = {"run": 0, "ablation": "k", "router": 2, "experts": '{"a": [0]}', "mode": "zero", "control": "none", "n": 9,
              "counted_at": "target", "load": 0.2, "ci_low": 0.0, "ci_high": 0.2}  # fmt: skip
    rows = [effect | {"expert": e, "group_kind": "all", "group": "all", "delta_nll": 0.1 + e} for e in range(3)]
    rows += [effect | {"expert": e, "group_kind": "upos", "group": t, "delta_nll": 0.5} for e in range(3) for t in TAGS]
    with duckdb.connect(str(path)) as con:
        con.register("found", pd.DataFrame(rows))
        con.execute("insert into ablations by name from found")
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    queries, grid, share = part("queries.expert.expert_cards"), part("parts.expert.card_grid"), part("wording").share
    monkeypatch.setattr(expert_cards, "LEAST", 1)
    cards = queries.of(RUN, layer_of(2))
    for card in cards[:3]:
        assert card.effect == (0.1 + card.expert, 0.0, 0.2)
        if card.best:
            head = f"{card.best.label}: {share(card.best.share)} of {card.best.kind} {card.best.label} tokens, lift"
            assert card.summary.startswith(head)
            assert card.summary.endswith("without it " + (f"{card.best.label} +0.500 nats" if card.best.kind == "upos"
                                                          else f"{0.1 + card.expert:+.3f} nats"))  # fmt: skip
    assert [card.expert for card in grid.ordered(cards, "effect")][:3] == [2, 1, 0]
    loads = [card.load for card in grid.ordered(cards, "load")]
    assert loads == sorted(loads, reverse=True)
    assert any(card.matches("CAT") for card in cards)
    assert not any(card.matches("zzz") for card in cards)
    dead = next(card for card in queries.of(RUN, layer_of(3)) if card.expert == 3)
    assert dead.summary == "never ran on this data"
    assert (dead.load, dead.words, dead.labels) == (0.0, [], [])


def test_a_notebook_has_the_cards_of_the_page(recounted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One query, and one drawing: the page's are links."""
    monkeypatch.setenv("MOESCOPE_STORE", str(recounted_store))
    page = part("queries.expert.expert_cards").of(RUN | {"decisions": 900}, layer_of(2))
    picture = show.experts(recounted_store, "decoder 1", run=0)
    pd.testing.assert_frame_equal(picture.frame, expert_cards.table(page))
    shown = opened(recounted_store, "experts", monkeypatch, run="0", layer="decoder 1", show="all")
    html = next(h.proto.body for h in shown.get("html") if 'class="ms-experts"' in h.proto.body)
    plain = re.sub(r' (href|target)="[^"]*"', "", html).replace("<a ", "<div ").replace("</a>", "</div>")
    found = re.search(r'<script type="application/json" id="parts">(.*?)</script>', picture.to_html(), re.DOTALL)
    assert found
    assert json.loads(found[1])[0]["data"]["html"] == plain
    assert re.findall(r"asked ([\d.]+ %), ran ([\d.]+ %)", html) == [
        tuple(part("wording").share(v) for v in (card.demand, card.load)) for card in page
    ]


def test_grid_and_keys_on_the_page(recounted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(recounted_store, "experts", monkeypatch, run="0", layer="decoder 2", show="all", sort="load")
    html = next(h.proto.body for h in page.get("html") if 'class="ms-experts"' in h.proto.body)
    assert html.count('href="experts?run=0&amp;layer=decoder+2&amp;expert=') == EXPERTS
    assert "never ran on this data" in html
    page = opened(recounted_store, "experts", monkeypatch, run="0", layer="decoder 2", expert="1")
    for key, expert in (("next", 2), ("next", 3), ("next", 0), ("previous", 3)):
        page.button(key=f"expert-{key}").click().run()
        assert page.selectbox(key="box-expert").value == expert
    assert any("Expert 3 of decoder 2: never ran" in h.proto.body for h in page.get("html"))
