"""What pages count themselves: whole rows, against a recount of every decision in plain Python."""

from collections import Counter
from collections.abc import Callable
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


Among = Callable[[Any], bool]


def load_rows(run: int, among: Among = lambda t: True, of: Among = lambda t: True) -> list[tuple[Any, ...]]:
    """Per expert: asked, ran, lost; shares of what ran, of what was asked, of first choices; share lost; mean weight. Of tokens
    for which `of` holds, of those `among` which it is asked."""
    found = []
    for router, stack, layer in order(run):
        here = [d for d in TRUTH.of(run, router) if among(d.of) and of(d.of)]
        every = sum(len(d.chosen) for d in here)
        for e in range(EXPERTS):
            mine = [(w, lost) for d in here for x, w, lost in d.chosen if x == e]
            kept = [w for w, lost in mine if not lost]
            first = sum(d.first == e for d in here)
            found.append((
                stack, layer, router, e, len(mine), len(kept), len(mine) - len(kept), len(kept) / ran(here), len(mine) / every,
                first / len(here), (len(mine) - len(kept)) / len(mine) if mine else None,
                sum(kept) / len(kept) if kept else None,
            ))  # fmt: skip
    return found


COLUMNS = (
    "stack", "layer", "router", "expert", "asked", "assignments", "lost", "share", "demand", "first", "dropped", "mean",
)  # fmt: skip


def test_load_of_every_expert() -> None:
    """As kept, but for first choices, of which the kept sums have those alone that ran: then all are counted."""
    loads = part("queries.loads")
    for value in loads.VALUES:
        frame, _, _, kept = loads.of(RUN, value, None, "everything")
        wanted = load_rows(0)
        if value != "first":
            columns = tuple(c for c in COLUMNS if c != "first")
            same(rows(frame, *columns), [(*row[:9], *row[10:]) for row in wanted])
        else:
            same(rows(frame, *COLUMNS), wanted)
        assert kept == 1.0
    assert loads.drops(0)
    assert next(iter(loads.values(0))) == "demand"


@pytest.mark.parametrize("value", ["demand", "share", "first"])
@pytest.mark.parametrize(("kind", "label"), [("domain", "law"), ("upos", "NOUN")])
def test_load_by_label(kind: str, label: str, value: str) -> None:
    """Of sequences and of tokens alike; beside it what all with a label of the kind have, and the difference to it."""
    frame = part("queries.loads").of(RUN, value, (kind, label), "everything")[0]
    own = (lambda t: t.domain == label) if kind == "domain" else (lambda t: t.upos == label)
    here, every = load_rows(0, of=own), load_rows(0)
    same(rows(frame, *COLUMNS), here)
    at = COLUMNS.index(value)
    same(rows(frame, "overall", "difference"), [(b[at], a[at] - b[at]) for a, b in zip(here, every, strict=True)])


SPLITS = {
    "prompts": lambda t: t.phase == "prefill" and not t.generated,
    "generated tokens": lambda t: t.phase == "decode" or t.generated,
    "first token": lambda t: t.position == 0,
    "positions 1–15": lambda t: 1 <= t.position <= 15,
    "positions 16–": lambda t: t.position >= 16,
}


@pytest.mark.parametrize("split", SPLITS)
def test_load_by_phase_and_position(split: str) -> None:
    """Every expert, also those that none of these tokens reached; what is asked nothing of has no share."""
    loads = part("queries.loads")
    frame = loads.of(RUN, "share", None, split)[0]
    expected = []
    for router, stack, layer in order(0):
        here = [d for d in TRUTH.of(0, router) if SPLITS[split](d.of)]
        every = ran(here)
        expected += [(stack, layer, router, e, ran(here, e), ran(here, e) / every if every else None) for e in range(EXPERTS)]
    same(rows(frame, "stack", "layer", "router", "expert", "assignments", "share"), expected)
    assert set(loads.SPLITS) == {"everything", *SPLITS}


def linearized(mine: np.ndarray, every: np.ndarray) -> tuple[float, float]:
    """95 % of a ratio over documents by its residuals, one document at a time."""
    share, units = mine.sum() / every.sum(), len(every)
    spread = np.sqrt(units / (units - 1) * sum((m - share * n) ** 2 for m, n in zip(mine, every, strict=True))) / every.sum()
    return max(share - 1.96 * spread, 0.0), min(share + 1.96 * spread, 1.0)


@pytest.mark.parametrize("value", ["demand", "share", "first"])
def test_intervals_of_counted_loads(value: str) -> None:
    frame = part("queries.loads").of(RUN, value, ("domain", "law"), "everything")[0].set_index(["router", "expert"])
    assert frame[["low", "high"]].isna().all().all()  # law stands in too few documents for an interval
    frame = part("queries.loads").of(RUN, value, ("upos", "NOUN"), "everything")[0].set_index(["router", "expert"])
    for router in range(4):
        here = [d for d in TRUTH.of(0, router) if d.of.upos == "NOUN"]

        def counts(e: int | None, here: list[Any] = here) -> np.ndarray:
            found = np.zeros(6)
            for d in here:
                for rank, (x, _, lost) in enumerate(d.chosen):
                    wanted = {"demand": True, "share": not lost, "first": rank == 0}[value]
                    found[int(d.of.document[1:])] += wanted and e in (None, x)
            return found

        for e in range(EXPERTS):
            low, high = linearized(counts(e), counts(None))
            row = frame.loc[(router, e)]
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-9)


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
    frame = part("queries.store_access").frame(part("queries.loads").KEPT, 0)
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
        ("Decisions", str(len(here)), f"{RUN['tokens']} tokens, 4 routers", ""),
        ("Rate", f"{RUN['tokens'] / 20:.3g}/s", "tokens; tracing took 5 %", ""),
        ("Load evenness", share(np.mean(even)), "of the largest entropy, mean of layers",
         "good" if np.mean(even) > 0.9 else "warn"),
        ("Dead experts", f"{dead} of 16", "never ran", "bad"),
        ("Dropped", share(lost / len(here)),
         f"of what was asked; {count(unrouted)} decision{'s' * (unrouted != 1)} had no expert", "warn"),
        ("Not finite", "0", "decisions whose logits are no finite numbers", "good"),
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
    """Where some of it was dropped, demand: an expert asked for most is never shown as one used less than evenly."""
    value, _, frame, _, _ = view("runs").glanced(0)
    assert value == "demand"
    expected = [(*row[:7], row[8]) for row in load_rows(0)]
    same(rows(frame, *COLUMNS[:7], "demand"), expected)


def test_labels_of_a_run() -> None:
    kinds = rows(part("queries.store_access").frame(part("queries.expert.experts").KINDS, 0, 0))
    assert kinds == [("domain", False, 3), ("upos", True, 4)]
    assert part("parts.pickers").labels_of(0) == {"domain": DOMAINS}
    assert part("parts.pickers").labels_of(0, tokens=True) == {"domain": DOMAINS, "upos": ["ADP", "DET", "NOUN", "VERB"]}
    assert Counter(t.upos for t in TRUTH.tokens if t.run == 0).keys() == {"DET", "NOUN", "VERB", "ADP"}
