"""What the Experts page counts: tokens by lift, labels, contexts, company; against a recount of every decision."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import part, rows, same, view
from recounted import DOMAINS, EXPERTS, WORDS, Decision, Truth, ran, spread, written

from moescope import statistics as st

pytestmark = pytest.mark.usefixtures("recounted_shown")
TRUTH = Truth()
RUN = {"run": 0, "tokens": len(TRUTH.tokens) // 2, "model": 0, "model_name": "run 0", "dataset": "text"}
ROUTERS = range(4)


def layer_of(router: int) -> Any:
    return next(x for x in part("parts.pickers").layers(0) if x.router == router)


def wilson(here: int, seen: int) -> float:
    """The lower end of Wilson's 95 % interval."""
    p, z = here / seen, 1.96
    middle, half = p + z * z / (2 * seen), z * np.sqrt(p * (1 - p) / seen + z * z / (4 * seen * seen))
    return float((middle - half) / (1 + z * z / seen))


@pytest.mark.parametrize("router", ROUTERS)
def test_tokens_by_lift(router: int) -> None:
    """Where some were dropped, a token's rate is of all that were looked at."""
    facts, here = part("queries.experts"), TRUTH.of(0, router)
    assert not facts.exact(layer_of(router))
    for expert in range(EXPERTS):
        expected = []
        for vocab, word in enumerate(WORDS):
            of = [d for d in here if d.of.vocab == vocab]
            if n := ran(of, expert):
                low = wilson(n, len(of))
                expected.append((word, n, len(of), n / len(of), low, n / len(of) / 0.3, low / 0.3, -low, vocab))
        expected = [row[:-2] for row in sorted(expected, key=lambda row: row[-2:])]
        same(rows(facts.top_tokens(RUN, layer_of(router), expert, 0.3)[0]), expected)
        plain = facts.top_tokens(RUN, layer_of(router), expert, 0.0)[0]  # an expert that never ran
        assert rows(plain, "lift", "at_least") == rows(plain, "rate", "low")


def test_kept_sums_say_the_same_where_nothing_was_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts from the rollup are those of the decisions."""
    from dataclasses import replace

    truth = Truth(1)
    truth.decisions = [replace(d, chosen=tuple((e, w, False) for e, w, _ in d.chosen)) for d in truth.decisions]
    monkeypatch.setenv("MOESCOPE_STORE", str(written(tmp_path / "whole.duckdb", truth)))
    facts = part("queries.experts")
    for router in ROUTERS:
        here, layer = truth.of(0, router), layer_of(router)
        assert facts.exact(layer)
        for expert in range(EXPERTS):
            found = {row[0]: row[1:4] for row in rows(facts.top_tokens(RUN, layer, expert, 1.0)[0])}
            of = {w: [d for d in here if d.of.vocab == v] for v, w in enumerate(WORDS)}
            assert found == {w: (ran(o, expert), len(o), ran(o, expert) / len(o)) for w, o in of.items() if ran(o, expert)}
        same(sorted(rows(facts.nearest(RUN, layer, 0)[0])), cosines(here, 0))


def cosines(here: list[Decision], expert: int) -> list[tuple[int, float]]:
    """Between the counts of words that experts see."""
    seen = [[ran([d for d in here if d.of.vocab == v], e) for v in range(len(WORDS))] for e in range(EXPERTS)]
    table = np.array(seen, float)
    norm = np.sqrt((table**2).sum(1))
    found = [(o, float(table[expert] @ table[o] / norm[expert] / norm[o])) for o in range(EXPERTS) if o != expert and norm[o]]
    return [(o, c) for o, c in found if c]


@pytest.mark.parametrize("router", ROUTERS)
def test_experts_that_see_the_same(router: int) -> None:
    found = rows(part("queries.experts").nearest(RUN, layer_of(router), 1)[0])
    same(sorted(found), cosines(TRUTH.of(0, router), 1))
    assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("kind", ["domain", "upos"])
def test_labels(router: int, kind: str) -> None:
    """Shares, counts, documents, and the bootstrap over documents once more."""
    facts, here = part("queries.experts"), TRUTH.of(0, router)
    of = (lambda d: d.of.domain) if kind == "domain" else (lambda d: d.of.upos)
    names = DOMAINS if kind == "domain" else ["ADP", "DET", "NOUN", "VERB"]
    documents = [f"d{n}" for n in range(6)]
    home = [next(names.index(of(d)) for d in here if d.of.document == document) for document in documents]
    weights = st.bootstrap_weights(6, strata=np.array(home) if kind == "domain" else None)  # a document is of one domain
    expected = []
    for name in names:
        mine = [[d for d in here if of(d) == name and d.of.document == document] for document in documents]
        every, there = np.array([ran(m) for m in mine], float), np.array([ran(m, 2) for m in mine], float)
        draws = (weights @ there)[weights @ every > 0] / (weights @ every)[weights @ every > 0]
        low, high = spread(there.sum() / every.sum(), draws, int((every > 0).sum()), (0, 1))
        expected.append((name, there.sum() / every.sum(), int(every.sum()), int((every > 0).sum()), low, high))
    frame = facts.by_label(RUN, layer_of(router), 2, kind, kind == "upos")[0]
    columns = ("label", "share", "assignments", "documents", "low", "high")
    same(sorted(rows(frame, *columns)), sorted(expected))
    assert frame["share"].is_monotonic_decreasing


@pytest.mark.parametrize("word", ["", "▁cat", "#3"])
def test_contexts(word: str) -> None:
    """Every place is one where the expert was the first choice and ran, with ten tokens to either side."""
    facts, router, expert = part("queries.experts"), 2, 1
    frame, _, _ = facts.contexts(RUN, layer_of(router), expert, word)
    wanted = {"": range(len(WORDS)), "▁cat": [1], "#3": [3]}[word]
    places = {d.of.token: d for d in TRUTH.of(0, router) if d.first == expert and d.ran[:1] == [expert] and d.of.vocab in wanted
              and not d.chosen[0][2]}  # fmt: skip
    found = sorted(set(frame["token"]))
    assert len(found) == min(facts.PLACES, len(places))
    assert set(found) <= set(places)
    for number, some in frame.groupby("token"):
        one = places[number]
        near = [t for t in TRUTH.tokens if t.sequence == one.of.sequence and abs(t.position - one.of.position) <= 10]
        same(rows(some), [
            (number, one.chosen[0][1], one.of.sequence, one.of.position, one.of.document, t.position - one.of.position, t.text)
            for t in near
        ])  # fmt: skip


def together(router: int, expert: int) -> list[tuple[int, float, int]]:
    here = [d.ran for d in TRUTH.of(0, router)]
    pairs = Counter(o for r in here for o in r if expert in r and o != expert)
    mine = sum(expert in r for r in here)
    return sorted(((o, n / mine, n) for o, n in pairs.items()), key=lambda row: (-row[1], row[0]))


def following(router: int, expert: int, step: int) -> list[tuple[int, int, float]]:
    """(other, n, share of the tokens of the earlier one) one layer before or after."""
    one, two = ({d.of.token: d.first for d in TRUTH.of(0, r) if not d.chosen[0][2]} for r in (router, router + step))
    pairs = Counter((one[t], two[t]) for t in one.keys() & two.keys())
    found = []
    for (here, other), n in pairs.items():
        every = sum(m for (a, b), m in pairs.items() if (a == here if step > 0 else b == other))
        found += [(other, n, n / every)] * (here == expert)
    return sorted(found, key=lambda row: (-row[1], row[0]))


@pytest.mark.parametrize("router", [1, 2, 3])
def test_company(router: int) -> None:
    facts, frame = part("queries.experts"), part("queries.store_access").frame
    for expert in range(EXPERTS - 1):
        same(rows(frame(facts.COACTIVE, router, expert)), together(router, expert))
        for sql, step, words in ((facts.TO, 1, f"to layer {router}"), (facts.FROM, -1, f"from layer {router - 2}")):
            found = sorted(rows(frame(sql, router, expert)), key=lambda row: (-row[2], row[1]))
            edge = router + step not in (1, 2, 3)
            same(found, [] if edge else [(words, *row) for row in following(router, expert, step)])


def test_load_of_a_layer() -> None:
    here, expected = TRUTH.of(0, 3), []
    for e in range(EXPERTS):
        mine = [(w, rank) for d in here for rank, (x, w, lost) in enumerate(d.chosen) if x == e and not lost]
        lost = sum(x == e and gone for d in here for x, _, gone in d.chosen)
        first = sum(rank == 0 for _, rank in mine)
        mean = sum(w for w, _ in mine) / len(mine) if mine else None
        expected.append((e, len(mine) / ran(here), len(mine), first, lost, mean))
    same(rows(part("queries.store_access").frame(part("queries.experts").LOAD, 3)), expected)


def test_cards_of_an_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is handed on: its share of what ran, and the share of all tokens that come to it, however many a token takes."""
    experts, said = view("experts"), part("wording")
    shown: list[Any] = []
    monkeypatch.setattr(experts.panels, "cards", shown.extend)
    monkeypatch.setattr(experts.panels, "small_count_note", shown.append)
    here = TRUTH.of(0, 2)
    assert experts.glance(layer_of(2), 1) == pytest.approx((ran(here, 1) / ran(here), ran(here, 1) / len(here)))
    first = sum(d.first == 1 and not d.chosen[0][2] for d in here)
    weights = [w for d in here for x, w, lost in d.chosen if x == 1 and not lost]
    lost = sum(x == 1 and gone for d in here for x, _, gone in d.chosen)
    rank = 1 + sum(ran(here, e) > ran(here, 1) for e in range(EXPERTS))
    assert shown == [
        ("Share of load", said.share(ran(here, 1) / ran(here)), "even load is 25 %", ""),
        ("Times it ran", str(ran(here, 1)), f"{said.share(first / ran(here, 1))} as first choice", ""),
        ("Mean weight", f"{np.mean(weights):.3f}", "top-2 of 4", ""),
        ("Dropped", str(lost), "chosen but not run, for want of capacity", "warn"),
        ("Rank by load", f"{rank} of 4", "decoder 1", ""),
        ran(here, 1),
    ]


def test_finding_experts() -> None:
    """By a label, where it has at least 20 assignments; by a token, where at least 5."""
    facts = part("queries.experts")
    expected = []
    for router, stack, layer in ((0, "encoder", 0), (1, "decoder", 0), (2, "decoder", 1), (3, "decoder", 2)):
        every = TRUTH.of(0, router)
        law = [d for d in every if d.of.domain == "law"]
        for e in range(EXPERTS):
            share, overall = ran(law, e) / ran(law), ran(every, e) / ran(every)
            if ran(law, e) >= 20:
                expected.append((router, layer, stack, e, "domain: law", ran(law, e), share, overall, share / overall))
    same(sorted(rows(facts.find(0, 0, "LAW")[0])), sorted(expected))
    expected = []
    for router, stack, layer in ((0, "encoder", 0), (1, "decoder", 0), (2, "decoder", 1), (3, "decoder", 2)):
        every = TRUTH.of(0, router)
        cats = [d for d in every if d.of.vocab == 1]
        for e in range(EXPERTS):
            share, overall = (ran(cats, e) / ran(cats), ran(every, e) / ran(every)) if ran(cats) else (0, 1)
            if ran(cats, e) >= 5:
                expected.append((router, layer, stack, e, "token", ran(cats, e), share, overall, share / overall))
    found = facts.find(0, 0, "cat")[0]
    same(sorted(rows(found)), sorted(expected))
    assert facts.find(0, 0, "cat'")[0].empty  # a token of the other model
    assert len(facts.find(1, 1, "cat'")[0]) > 0
    assert found["lift"].is_monotonic_decreasing


def test_chance_beside_labels_and_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a label's assignments an expert has by chance its share of all of them; of a token's other experts one in E - 1."""
    experts, panels = view("experts"), part("parts.expert_panels")
    told: dict[str, Any] = {}
    monkeypatch.setattr(experts.pickers, "the_run", lambda: RUN)
    monkeypatch.setattr(experts.pickers, "choose_layer", lambda run: layer_of(2))
    monkeypatch.setattr(experts.pickers, "choose_expert", lambda layer: 1)
    monkeypatch.setattr(experts.url_state, "tabs", lambda *_: "labels")
    monkeypatch.setattr(experts, "finder", lambda run: None)
    monkeypatch.setattr(experts.expert_panels, "tokens_of", lambda run, layer, expert, overall: told.update(overall=overall))
    monkeypatch.setattr(experts, "labels", lambda run, layer, expert, even: told.update(even=even))
    experts.render()
    here = TRUTH.of(0, 2)
    assert told["overall"] == pytest.approx(ran(here, 1) / len(here))
    assert told["even"] == pytest.approx(ran(here, 1) / ran(here))  # of what ran: some of the two were dropped
    chances: dict[str, float | None] = {}
    monkeypatch.setattr(panels, "_ranked", lambda frame, value, title, chance, *_: chances.update({title: chance}))
    panels.company.__wrapped__(RUN, layer_of(2), 1)
    assert chances == {
        "Runs together with": pytest.approx(1 / 3), "Sees the same tokens as (cosine of counts)": None,
        "First choices one layer before": None, "First choices one layer after": 0.25,
    }  # fmt: skip
