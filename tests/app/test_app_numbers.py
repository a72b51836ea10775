"""What pages count themselves: whole rows, against a recount of every decision in plain Python."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import part, rows, same, view
from recounted import DOMAINS, EXPERTS, Truth, entropy, ran, spread

import moescope

pytestmark = pytest.mark.usefixtures("recounted_shown")
TRUTH = Truth()
RUN = {"run": 0, "tokens": len(TRUTH.tokens) // 2, "assignments": sum(len(d.chosen) for d in TRUTH.of(0)), "model": 0}


def order(run: int) -> list[tuple[int, str, int]]:
    """(router, stack, layer) in the order of pages."""
    found = {(d.of.stack, d.layer, d.router) for d in TRUTH.of(run)}
    return [(router, stack, layer) for stack, layer, router in sorted(found)]


def test_the_store_holds_what_was_planted(recounted_store: Path) -> None:
    with moescope.open(recounted_store) as opened:
        found = opened.rows(
            "select run, phase, stack, layer, router, token, sequence, position, vocab_id, text, generated, rank, expert, "
            "weight, dropped, document, domain from routing order by token, router, rank"
        )
        sure = opened.rows("select router, token, selected, entropy, log_sum_exp, margin from decisions order by token, router")
    expected = [
        (d.of.run, d.of.phase, d.of.stack, d.layer, d.router, d.of.token, d.of.sequence, d.of.position, d.of.vocab, d.of.text,
         d.of.generated, rank, expert, weight, dropped, d.of.document, d.of.domain)
        for d in TRUTH.decisions for rank, (expert, weight, dropped) in enumerate(d.chosen)
    ]  # fmt: skip
    assert found == expected
    assert sure == [(d.router, d.of.token, len(d.ran), d.entropy, d.log_sum_exp, d.margin) for d in TRUTH.decisions]


def share_rows(run: int) -> list[tuple[Any, ...]]:
    """The load page's rows: share of assignments, of first choices, of drops, and the mean weight."""
    found = []
    for router, stack, layer in order(run):
        here = TRUTH.of(run, router)
        firsts = sum(not d.chosen[0][2] for d in here)
        for e in range(EXPERTS):
            mine = [(w, lost) for d in here for x, w, lost in d.chosen if x == e]
            kept = [w for w, lost in mine if not lost]
            first = sum(d.first == e and not d.chosen[0][2] for d in here)
            found.append((
                stack, layer, router, e, len(kept), len(kept) / ran(here), first / firsts,
                (len(mine) - len(kept)) / len(mine) if mine else None, sum(kept) / len(kept) if kept else None,
            ))  # fmt: skip
    return found


def test_load_of_every_expert() -> None:
    same(rows(part("queries.store_access").frame(view("load").ALL, 0)), share_rows(0))


@pytest.mark.parametrize("domain", DOMAINS)
def test_load_by_label(domain: str) -> None:
    expected = []
    for router, stack, layer in order(1):
        every = TRUTH.of(1, router)
        here = [d for d in every if d.of.domain == domain]
        for e in range(EXPERTS):
            share, overall = ran(here, e) / ran(here), ran(every, e) / ran(every)
            expected.append((stack, layer, router, e, ran(here, e), share, overall, share - overall))
    same(rows(part("queries.store_access").frame(view("load").BY_LABEL, 1, "domain", domain)), expected)


SPLITS = {
    "prompts": lambda t: t.phase == "prefill" and not t.generated,
    "generated tokens": lambda t: t.phase == "decode" or t.generated,
    "first token": lambda t: t.position == 0,
    "positions 1–15": lambda t: 1 <= t.position <= 15,
    "positions 16–": lambda t: t.position >= 16,
}


@pytest.mark.parametrize("split", SPLITS)
def test_load_by_phase_and_position(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page asks for it; dropped assignments are no load."""
    load = view("load")
    monkeypatch.setattr(load.url_state, "choose", lambda label, key, options, *more: split if key == "split" else options[0])
    frame, _, params, column = load.choose(RUN)
    expected = []
    for router, stack, layer in order(0):
        here = [d for d in TRUTH.of(0, router) if SPLITS[split](d.of)]
        expected += [(stack, layer, router, e, ran(here, e), ran(here, e) / ran(here)) for e in range(EXPERTS) if ran(here, e)]
    same(rows(frame), expected)
    assert (set(load.SPLITS), params, column) == ({"everything", *SPLITS}, [0], "share")


def test_balance_along_the_layers() -> None:
    expected = []
    for router, stack, layer in order(0):
        here = TRUTH.of(0, router)
        counts = [ran(here, e) for e in range(EXPERTS)]
        sure = np.array([d.entropy for d in here])
        lost = sum(len(d.chosen) - len(d.ran) for d in here)
        expected.append((
            stack, layer, router, entropy(counts, EXPERTS), sure.mean() / np.log(EXPERTS), sure.std() / np.log(EXPERTS),
            np.mean([d.margin for d in here]), max(counts) * EXPERTS / sum(counts) - 1, lost / (lost + sum(counts)),
            counts.count(0), EXPERTS, len(here),
        ))  # fmt: skip
    same(rows(part("queries.store_access").frame(part("queries.balance").BALANCE, 0)), expected)


def test_intervals_of_balance_are_over_documents() -> None:
    """The bootstrap once more, a draw at a time, from what every document holds."""
    from moescope import statistics as st

    measures, experts = part("queries.balance").bounds(RUN)
    weights = st.bootstrap_weights(6)
    for router in range(4):
        here = TRUTH.of(0, router)
        table = np.array([[ran([d for d in here if d.of.document == f"d{n}"], e) for e in range(EXPERTS)] for n in range(6)])
        draws = weights @ table
        entropies = np.array([entropy(row.tolist(), EXPERTS) for row in draws])
        most = draws.max(1) / draws.sum(1) * EXPERTS - 1
        total = table.sum(0)
        expected = (
            router, *spread(entropy(total.tolist(), EXPERTS), entropies, bounds=(0, 1)),
            *spread(total.max() / total.sum() * EXPERTS - 1, most, bounds=(0, np.inf)),
        )  # fmt: skip
        same(rows(measures[measures["router"] == router]), [expected])
        shares = [spread(total[e] / total.sum(), draws[:, e] / draws.sum(1)) for e in range(EXPERTS)]
        expected_shares = [(router, e, max(low, 0.0), min(high, 1.0)) for e, (low, high) in enumerate(shares)]
        same(rows(experts[experts["router"] == router]), expected_shares)
    frame = part("queries.store_access").frame(view("load").ALL, 0)
    merged = part("queries.balance").shares(RUN, frame).merge(experts, on=["router", "expert"], suffixes=("", "_own"))
    assert (len(merged), (merged["low"] == merged["low_own"]).all(), (merged["high"] == merged["high_own"]).all()) == (
        16,
        True,
        True,
    )
    assert "low" not in part("queries.balance").shares(RUN | {"assignments": part("queries.balance").SMALL + 1}, frame)


def test_health_of_a_run() -> None:
    runs, stored = view("runs"), part("queries.store_access")
    here = TRUTH.of(0)
    dead = sum(not ran(TRUTH.of(0, r), e) for r in range(4) for e in range(EXPERTS))
    even, lost, unrouted = [], 0.0, sum(not d.ran for d in here)
    for router in range(4):
        mine = TRUTH.of(0, router)
        even.append(entropy([ran(mine, e) for e in range(EXPERTS)], EXPERTS))
        chosen = sum(len(d.chosen) for d in mine)
        lost += len(mine) * (chosen - ran(mine)) / chosen
    same(rows(stored.frame(runs.HEALTH, 0)), [(dead, 16, 0, unrouted, len(here), lost / len(here), np.mean(even), 4)])
    run = part("parts.pickers").runs()[0]
    share, count = part("wording").share, part("wording").count
    assert runs.health(run) == [
        ("Decisions", str(len(here)), f"{RUN['tokens']} tokens × 4 routers", ""),
        ("Rate", f"{RUN['tokens'] / 20:.3g}/s", "tokens; tracing took 5 %", ""),
        ("Load evenness", share(np.mean(even)), "of the largest entropy, mean of layers",
         "good" if np.mean(even) > 0.9 else "warn"),
        ("Dead experts", f"{dead} of 16", "never ran", "bad"),
        ("Dropped", share(lost / len(here)), f"{count(unrouted)} decisions had no expert", "warn"),
        ("Not finite", "0", "decisions with NaN or infinite logits", "good"),
        ("Proof", "none", "this run was not checked at attach", "warn"),
    ]  # fmt: skip
    proved = [{"error": 1e-7, "identical": True}, {"error": 3e-5, "identical": False}]
    import json

    words = "routers: layers recomputed to 3e-05; 1 of 2 written back bit for bit"
    assert runs.proof({"proof": json.dumps(proved)}) == ("Proof", "2 of 2", words, "warn")
    assert runs.proof({"proof": json.dumps(proved[:1])})[2:] == (
        "routers: layers recomputed to 1e-07; written back bit for bit", "good",
    )  # fmt: skip


def test_load_at_a_glance() -> None:
    expected = []
    for router, stack, layer in order(0):
        here = TRUTH.of(0, router)
        for e in range(EXPERTS):
            lost = sum(x == e and gone for d in here for x, _, gone in d.chosen)
            expected.append((stack, layer, router, e, ran(here, e) / ran(here), ran(here, e), lost))
    same(rows(part("queries.store_access").frame(view("runs").LOAD, 0)), expected)


def test_labels_of_a_run() -> None:
    kinds = rows(part("queries.store_access").frame(view("experts").KINDS, 0, 0))
    assert kinds == [("domain", False), ("upos", True)]
    assert part("parts.pickers").labels_of(0) == {"domain": DOMAINS}
    assert Counter(t.upos for t in TRUTH.tokens if t.run == 0).keys() == {"DET", "NOUN", "VERB", "ADP"}
