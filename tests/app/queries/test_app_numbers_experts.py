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
    facts, here = part("queries.expert.experts"), TRUTH.of(0, router)
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
    facts = part("queries.expert.experts")
    for router in ROUTERS:
        here, layer = truth.of(0, router), layer_of(router)
        assert facts.exact(layer)
        for expert in range(EXPERTS):
            found = {row[0]: row[1:4] for row in rows(facts.top_tokens(RUN, layer, expert, 1.0)[0])}
            of = {w: [d for d in here if d.of.vocab == v] for v, w in enumerate(WORDS)}
            assert found == {w: (ran(o, expert), len(o), ran(o, expert) / len(o)) for w, o in of.items() if ran(o, expert)}
        same(sorted(rows(part("queries.expert.company").nearest(RUN, layer, 0, "ran")[0])), cosines(here, 0, "ran"))


def counted_in(d: Decision, counted: str) -> list[int]:
    """Experts of a decision, by rank: those that ran, or all that were asked for."""
    return d.ran if counted == "ran" else [e for e, _, _ in d.chosen]


def cosines(here: list[Decision], expert: int, counted: str) -> list[tuple[int, float]]:
    """Between the counts of words that experts see."""
    seen = [
        [sum(e in counted_in(d, counted) for d in here if d.of.vocab == v) for v in range(len(WORDS))] for e in range(EXPERTS)
    ]
    table = np.array(seen, float)
    norm = np.sqrt((table**2).sum(1))
    found = [(o, float(table[expert] @ table[o] / norm[expert] / norm[o])) for o in range(EXPERTS) if o != expert and norm[o]]
    return [(o, c) for o, c in found if c]


@pytest.mark.parametrize("counted", ["asked", "ran"])
@pytest.mark.parametrize("router", ROUTERS)
def test_experts_that_see_the_same(router: int, counted: str) -> None:
    found = rows(part("queries.expert.company").nearest(RUN, layer_of(router), 1, counted)[0])
    same(sorted(found), cosines(TRUTH.of(0, router), 1, counted))
    assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("kind", ["domain", "upos"])
def test_labels(router: int, kind: str) -> None:
    """Shares of tokens, counts, documents, and the bootstrap over documents once more."""
    facts, here = part("queries.expert.experts"), TRUTH.of(0, router)
    of = (lambda d: d.of.domain) if kind == "domain" else (lambda d: d.of.upos)
    names = DOMAINS if kind == "domain" else ["ADP", "DET", "NOUN", "VERB"]
    documents = [f"d{n}" for n in range(6)]
    home = [next(names.index(of(d)) for d in here if d.of.document == document) for document in documents]
    weights = st.bootstrap_weights(6, strata=np.array(home) if kind == "domain" else None)  # a document is of one domain
    expected = []
    for name in names:
        mine = [[d for d in here if of(d) == name and d.of.document == document] for document in documents]
        every, there = np.array([len(m) for m in mine], float), np.array([ran(m, 2) for m in mine], float)  # of tokens
        draws = (weights @ there)[weights @ every > 0] / (weights @ every)[weights @ every > 0]
        low, high = spread(there.sum() / every.sum(), draws, int((every > 0).sum()), (0, 1))
        expected.append(
            (name, there.sum() / every.sum(), int(every.sum()), int(there.sum()), int((every > 0).sum()), low, high)
        )
    frame = facts.by_label(RUN, layer_of(router), 2, kind, kind == "upos")[0]
    columns = ("label", "share", "tokens", "here", "documents", "low", "high")
    same(sorted(rows(frame, *columns)), sorted(expected))
    labelled = [d for d in here if of(d) in names]
    assert frame["overall"].tolist() == [pytest.approx(ran(labelled, 2) / len(labelled))] * len(
        names
    )  # the bars' own denominator
    assert frame["share"].is_monotonic_decreasing


@pytest.mark.parametrize("by", ["most", "random"])
@pytest.mark.parametrize("word", ["", "▁cat", "#3"])
def test_contexts(word: str, by: str) -> None:
    """Every place is one where the expert was the first choice and ran, with tokens to either side; by weight, or not."""
    facts, router, expert = part("queries.expert.experts"), 2, 1
    frame, _, _ = facts.contexts(RUN, layer_of(router), expert, word, by)
    wanted = {"": range(len(WORDS)), "▁cat": [1], "#3": [3]}[word]
    places = {d.of.token: d for d in TRUTH.of(0, router) if d.first == expert and d.ran[:1] == [expert] and d.of.vocab in wanted
              and not d.chosen[0][2]}  # fmt: skip
    found = sorted(set(frame["token"]))
    assert len(found) == min(facts.PLACES, len(places))
    assert set(found) <= set(places)
    if by == "most":
        weights = sorted((d.chosen[0][1] for d in places.values()), reverse=True)[: len(found)]
        assert frame.drop_duplicates("token")["weight"].tolist() == weights
    for number, some in frame.groupby("token"):
        one = places[number]
        near = [t for t in TRUTH.tokens if t.sequence == one.of.sequence and abs(t.position - one.of.position) <= facts.AROUND]
        same(rows(some), [
            (number, one.chosen[0][1], one.of.sequence, one.of.position, one.of.document, t.position - one.of.position, t.text)
            for t in near
        ])  # fmt: skip


def together(router: int, expert: int, counted: str) -> list[tuple[int, float, int]]:
    here = [counted_in(d, counted) for d in TRUTH.of(0, router)]
    pairs = Counter(o for r in here for o in r if expert in r and o != expert)
    mine = sum(expert in r for r in here)
    return sorted(((o, n / mine, n) for o, n in pairs.items()), key=lambda row: (-row[1], row[0]))


def firsts(router: int, counted: str) -> dict[int, int]:
    """{token: its first choice}; of those that ran, or of all."""
    return {d.of.token: d.first for d in TRUTH.of(0, router) if counted == "asked" or not d.chosen[0][2]}


def following(router: int, expert: int, step: int, counted: str) -> list[tuple[int, int, float]]:
    """(other, n, share of the tokens of the earlier one) one layer before or after."""
    one, two = firsts(router, counted), firsts(router + step, counted)
    pairs = Counter((one[t], two[t]) for t in one.keys() & two.keys())
    found = []
    for (here, other), n in pairs.items():
        every = sum(m for (a, b), m in pairs.items() if (a == here if step > 0 else b == other))
        found += [(other, n, n / every)] * (here == expert)
    return sorted(found, key=lambda row: (-row[1], row[0]))


@pytest.mark.parametrize("counted", ["asked", "ran"])
@pytest.mark.parametrize("router", [1, 2, 3])
def test_company(router: int, counted: str) -> None:
    """Of what was asked for and of what ran, which capacity makes two things."""
    facts, layer = part("queries.expert.company"), layer_of(router)
    for expert in range(EXPERTS - 1):
        same(rows(facts.together(RUN, layer, expert, counted)[0]), together(router, expert, counted))
        for way, step in ((facts.after, 1), (facts.before, -1)):
            found = way(RUN, layer, expert, counted)[0]
            expected = [] if router + step not in (1, 2, 3) else following(router, expert, step, counted)
            same(sorted(rows(found, "other", "n", "share"), key=lambda row: (-row[1], row[0])), expected)
            assert set(found["every"]) == ({sum(n for _, n, _ in expected)} if expected else set())
            assert set(found["router"]) <= {router + step}
        mine = firsts(router, counted)
        expected_share = sum(e == expert for e in mine.values()) / len(mine)
        assert facts.first_share(RUN, layer, expert, counted) == pytest.approx(expected_share)


def test_load_of_a_layer() -> None:
    here, expected = TRUTH.of(0, 3), []
    for e in range(EXPERTS):
        mine = [(w, rank) for d in here for rank, (x, w, lost) in enumerate(d.chosen) if x == e and not lost]
        lost = sum(x == e and gone for d in here for x, _, gone in d.chosen)
        first = sum(rank == 0 for _, rank in mine)
        mean = sum(w for w, _ in mine) / len(mine) if mine else None
        expected.append((e, len(mine) / ran(here), len(mine), first, lost, mean))
    same(rows(part("queries.store_access").frame(part("queries.expert.experts").LOAD, 3)), expected)


def test_cards_of_an_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is handed on: its share of what ran, and the share of all tokens that come to it, however many a token takes."""
    experts, said = view("experts"), part("wording")
    shown: list[Any] = []
    monkeypatch.setattr(experts.panels, "cards", shown.extend)
    monkeypatch.setattr(experts.panels, "small_count_note", shown.append)
    here = TRUTH.of(0, 2)
    assert experts.glance(layer_of(2), 1) == pytest.approx(ran(here, 1) / len(here))
    first = sum(d.first == 1 and not d.chosen[0][2] for d in here)
    weights = [w for d in here for x, w, lost in d.chosen if x == 1 and not lost]
    lost = sum(x == 1 and gone for d in here for x, _, gone in d.chosen)
    asked = {e: sum(x == e for d in here for x, _, _ in d.chosen) for e in range(EXPERTS)}
    rank = 1 + sum(ran(here, e) > ran(here, 1) for e in range(EXPERTS))
    wanted = 1 + sum(n > asked[1] for n in asked.values())
    assert shown == [
        ("Share of load", said.share(ran(here, 1) / ran(here)), "of what ran in this layer; even is 25 %", ""),
        ("Share of tokens", said.share(ran(here, 1) / len(here)), f"it ran for, of {len(here)}; even is 50 %", ""),
        ("Times it ran", str(ran(here, 1)), f"{said.share(first / ran(here, 1))} of them as first choice", ""),
        ("Mean weight", f"{np.mean(weights):.3f}", "where it ran; top-2 of 4", ""),
        ("Asked for", str(asked[1]), f"{said.share(asked[1] / sum(asked.values()))} of the layer's demand", ""),
        ("Dropped", str(lost), f"{said.share(lost / asked[1])} of what was asked of it, for want of capacity", "warn"),
        ("Rank by what ran", f"{rank} of 4", f"decoder 1; {wanted} by what was asked", ""),
        ran(here, 1),
    ]


def found_rows(run: int, of: Any, what: str, least: int) -> list[tuple[Any, ...]]:
    """Of the tokens that `of` says, those for which each expert ran, beside the same of all tokens."""
    expected = []
    for router, stack, layer in ((0, "encoder", 0), (1, "decoder", 0), (2, "decoder", 1), (3, "decoder", 2)):
        every = TRUTH.of(run, router)
        mine = [d for d in every if of(d.of)]
        for e in range(EXPERTS):
            enough = ran(mine, e) >= 5 if what == "token" else len(mine) >= least and ran(mine, e) > 0
            if enough:
                share, overall = ran(mine, e) / len(mine), ran(every, e) / len(every)
                expected.append((router, layer, stack, e, what, ran(mine, e), len(mine), share, overall, share / overall))
    return sorted(expected)


@pytest.mark.parametrize(
    ("text", "what", "of"),
    [("LAW", "domain: law", lambda t: t.domain == "law"), ("verb", "upos: VERB", lambda t: t.upos == "VERB"),
     ("cat", "token", lambda t: t.vocab == 1)],
)  # fmt: skip
def test_finding_experts(text: str, what: str, of: Any) -> None:
    """By a label of sequences or of tokens that 20 tokens have; by a token, where at least 5 came; as shares of tokens."""
    finding = part("queries.expert.finding")
    found = finding.find(RUN, text)[0]
    expected = found_rows(0, of, what, finding.LEAST)
    same(sorted(rows(found.drop(columns="found"))), expected)
    assert set(found["found"]) == {len(expected)}
    assert found["lift"].is_monotonic_decreasing


def test_what_is_not_there_is_not_found() -> None:
    finding = part("queries.expert.finding")
    assert finding.find(RUN, "cat'")[0].empty  # a token of the other model
    assert len(finding.find(RUN | {"run": 1, "model": 1}, "cat'")[0]) > 0
    assert finding.examples(0) == ["code", "NOUN"] or set(finding.examples(0)) <= {*DOMAINS, "DET", "NOUN"}


def test_chance_beside_labels_and_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a label's tokens an expert has by chance what it has of all with a label; of a token's other experts 1 in E - 1."""
    experts, panels = view("experts"), part("parts.expert.expert_panels")
    told: dict[str, Any] = {}
    monkeypatch.setattr(experts.figures, "ranked", lambda frame, *_, **look: told.update({look["name"]: look["chance"]}))
    monkeypatch.setattr(experts.panels, "section", lambda *_: None)
    experts.labels.__wrapped__(RUN, layer_of(2), 1)
    here = TRUTH.of(0, 2)
    assert told == dict.fromkeys(("expert-domain", "expert-upos"), pytest.approx(ran(here, 1) / len(here)))
    chances: dict[str, float | None] = {}
    monkeypatch.setattr(panels, "_ranked", lambda frame, value, title, said, chance, *_: chances.update({title: chance}))
    panels.company.__wrapped__(RUN, layer_of(2), 1)
    assert chances == {
        "Runs together with": pytest.approx(1 / 3), "Sees the same tokens as": None,
        "One layer before": pytest.approx(sum(d.first == 1 for d in here) / len(here)),  # asked for: some was dropped
        "One layer after": 0.25,
    }  # fmt: skip
