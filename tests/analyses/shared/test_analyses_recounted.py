"""What analyses and views say of a store with drops, generated tokens and special experts, recounted by hand."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from math import ceil, comb
from pathlib import Path

import numpy as np
import pytest
from pages import rows, same
from recounted import DOMAINS, EXPERTS, Decision, Token, Truth, entropy, ran, spread, written

import moescope
from moescope import analyses
from moescope import statistics as st
from moescope.analyses._shared import scope
from moescope.analyses.load import capacity

TRUTH = Truth()
PLACES = {
    0: "0",
    **dict.fromkeys(range(1, 4), "1-3"),
    **dict.fromkeys(range(4, 16), "4-15"),
    **dict.fromkeys(range(16, 64), "16-63"),
}
SUBSETS: dict[str, Callable[[Token], bool]] = {
    "": lambda t: True,
    **{f"domain={d}": lambda t, d=d: t.domain == d for d in DOMAINS},  # type: ignore[misc]
    **{f"phase={p}": lambda t, p=p: t.phase == p for p in ("prefill", "decode")},  # type: ignore[misc]
    **{f"position={b}": lambda t, b=b: PLACES[t.position] == b for b in set(PLACES.values())},  # type: ignore[misc]
}


@pytest.fixture(scope="module", params=[4, 3], ids=["all routed", "one identity"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    return written(tmp_path_factory.mktemp("recounted") / "a.duckdb", TRUTH, request.param), request.param


def counts(here: list[Decision], experts: int) -> list[int]:
    return [ran(here, e) for e in range(experts)]


def measures(c: list[int]) -> dict[str, tuple[float, float]]:
    """{name: (value, chance)} of one load, by their formulas."""
    n, e = sum(c), len(c)
    p, mean = np.array(c) / n, n / e

    def binomial(trials: int, x: int) -> float:
        return comb(trials, x) * (1 / e) ** x * (1 - 1 / e) ** (trials - x)

    return {
        "load entropy (bits)": (entropy(c), np.log2(e)),
        "normalized load entropy": (entropy(c, e), 1.0),
        "Gini of load": (float(np.abs(p[:, None] - p).sum() / (2 * e)), 0.0),
        "CV of load": (float(np.sqrt(((np.array(c) - mean) ** 2).mean()) / mean), 0.0),
        "MaxVio": (max(c) / mean - 1, 0.0),
        "dead experts": (float(c.count(0)), e * (1 - 1 / e) ** n),
        "cold experts": (float(sum(x < 0.1 * mean for x in c)), e * sum(binomial(n, x) for x in range(n) if x < 0.1 * mean)),
    }


def test_load_of_everything_and_of_parts(planted: tuple[Path, int]) -> None:
    """By label, phase and position; dropped assignments and identities are no load."""
    path, experts = planted
    found = analyses.run("load", path, run=0).frames["figures"].set_index(["router", "subset", "name"])
    for router in range(4):
        for subset, belongs in SUBSETS.items():
            here = [d for d in TRUTH.of(0, router) if belongs(d.of)]
            c = counts(here, experts)
            if not sum(c):
                continue
            documents = len({d.of.document for d in here for e in d.ran if e < experts})
            for name, (value, chance) in measures(c).items():
                row = found.loc[(router, subset, name)]
                said = (row["value"], row["chance"], row["n"], row["units"])
                assert said == pytest.approx((value, chance, sum(c), documents), abs=1e-9), (router, subset, name)
    known = {s for s in found.index.get_level_values("subset") if s.startswith(("phase", "position", "domain"))}
    assert known == set(SUBSETS) - {""}


def test_share_of_every_expert_with_its_interval(planted: tuple[Path, int]) -> None:
    path, experts = planted
    frame = analyses.run("load", path, run=0).frames["experts"]
    weights = st.bootstrap_weights(6)
    for router in range(4):
        here = TRUTH.of(0, router)
        table = np.array([counts([d for d in here if d.of.document == f"d{n}"], experts) for n in range(6)])
        total, drawn = table.sum(0), weights @ table
        expected = []
        for e in range(experts):
            low, high = spread(total[e] / total.sum(), drawn[:, e] / drawn.sum(1))
            expected.append((e, total[e] / total.sum(), 1 / experts, max(low, 0.0), min(high, 1.0), int(total[e])))
        same(rows(frame[frame["router"] == router], "expert", "value", "chance", "ci_low", "ci_high", "n"), expected)


def test_views_of_load(planted: tuple[Path, int]) -> None:
    """Identities have no share of load and are not counted among the experts; drops are counted apart."""
    path, experts = planted
    with moescope.open(path) as store:
        load = store.rows(
            "select router, expert, assignments, first, dropped, weight, share from expert_load where run = 0 order by 1, 2"
        )
        balance = store.rows(
            "select router, experts, assignments, dropped_share, entropy_bits, max_bits, normalized, max_violation, busiest, "
            "busiest_share, dead from load_balance where run = 0 order by 1"
        )
        summary = store.rows(
            "select router, decisions, unrouted, routing_entropy, margin, z_loss, nonfinite from router_summary where run = 0 "
            "order by 1"
        )
    expected, balances, summaries = [], [], []
    for router in range(4):
        here = TRUTH.of(0, router)
        c = counts(here, experts)
        lost = [sum(x == e and gone for d in here for x, _, gone in d.chosen) for e in range(experts)]
        for e in range(experts):
            first = sum(d.first == e and not d.chosen[0][2] for d in here)
            weight = sum(w for d in here for x, w, gone in d.chosen if x == e and not gone)
            expected.append((router, e, c[e], first, lost[e], weight, c[e] / sum(c)))
        balances.append((
            router, experts, sum(c), sum(lost) / (sum(lost) + sum(c)), entropy(c), np.log2(experts), entropy(c, experts),
            max(c) * experts / sum(c) - 1, int(np.argmax(c)), max(c) / sum(c), c.count(0),
        ))  # fmt: skip
        mean = [
            float(np.mean(v)) for v in ([d.entropy for d in here], [d.margin for d in here], [d.log_sum_exp**2 for d in here])
        ]
        summaries.append((router, len(here), sum(not d.ran for d in here), *mean, 0))
    same(load, expected)
    same(balance, balances)
    same(summary, summaries)


def test_views_of_labels_and_ids(planted: tuple[Path, int]) -> None:
    """Of the assignments of a label, or an id, each expert's share, and what chance gives; identities take theirs."""
    path, _ = planted
    with moescope.open(path) as store:
        labels = store.rows(
            "select router, label, expert, assignments, share, overall from label_load where run = 1 order by 1, 2, 3"
        )
        words = store.rows(
            "select router, text, expert, assignments, first, share, overall from vocab_load where run = 1 "
            "order by 1, vocab_id, 3"
        )
    expected, of_words = [], []
    for router in range(4, 8):
        every = TRUTH.of(1, router)
        for label in DOMAINS:
            here = [d for d in every if d.of.domain == label]
            expected += [
                (router, label, e, ran(here, e), ran(here, e) / ran(here), ran(every, e) / ran(every)) for e in range(EXPERTS)
            ]
        for vocab in range(7):
            here = [d for d in every if d.of.vocab == vocab]
            for e in range(EXPERTS):
                first = sum(d.first == e and not d.chosen[0][2] for d in here)
                share = (ran(here, e) / max(ran(here), 1), ran(every, e) / ran(every))
                of_words += [(router, here[0].of.text, e, ran(here, e), first, *share)] if here and ran(here, e) else []
    same(labels, expected)
    same(words, of_words)


def test_specialization_by_domain(planted: tuple[Path, int]) -> None:
    """N_ED / N_D with chance k/E over what ran; the share of the label's load with the share over all labels."""
    path, experts = planted
    frame = analyses.run("specialization", path, run=0).frames["figures"]
    for router in range(4):
        every = TRUTH.of(0, router)
        total = sum(counts(every, experts))
        for name in ("domain specialization", "share of load by label"):
            mine = frame[(frame["router"] == router) & (frame["name"] == name)].sort_values(["subset", "expert"])
            expected = []
            for label in DOMAINS:
                here = [d for d in every if d.of.domain == label]
                c, units = counts(here, experts), len({d.of.document for d in here})
                for e in range(experts):
                    value = c[e] / len(here) if name[0] == "d" else c[e] / sum(c)
                    chance = total / len(every) / experts if name[0] == "d" else counts(every, experts)[e] / total
                    expected.append((e, f"domain={label}", value, chance, len(here), units))
            same(rows(mine, "expert", "subset", "value", "chance", "n", "units"), expected)


def test_pairs_and_repetition_with_their_chance(planted: tuple[Path, int]) -> None:
    """Co-activation's largest share and chance (k − 1)/(E − 1), k what ran where any did; neighbours and two sets that meet."""
    path, experts = planted
    if experts != EXPERTS:
        pytest.skip("of routed experts alone")
    frame = analyses.run("structure", path, run=0).frames["figures"].set_index(["router", "name", "estimator", "subset"])
    for router in (1, 2, 3):
        here = TRUTH.of(0, router)
        table = np.zeros((4, 4))
        for d in here:
            for a in d.ran:
                for b in d.ran:
                    table[a, b] += a != b
        share = table / np.maximum(np.array(counts(here, 4))[:, None], 1)
        k = ran(here) / len([d for d in here if d.ran])
        largest = frame.loc[(router, "co-activation, largest", "paper", "")]
        assert (largest["value"], largest["chance"]) == pytest.approx((share.max(), (k - 1) / 3))
        closest = frame.loc[(router, "co-activation, mean of closest partners", "paper", "")]
        assert closest["value"] == pytest.approx(share.max(1).mean())
        both = [(a, b) for a, b in pairwise(here) if a.of.sequence == b.of.sequence and a.ran and b.ran]
        row = frame.loc[(router, "repetition, any of the chosen", "against random", "")]
        meet = np.mean([bool(set(a.ran) & set(b.ran)) for a, b in both])
        assert (row["value"], row["chance"], row["n"]) == pytest.approx((meet, 1 - 1 / 6, len(both)))
        first = [a.first == b.first and not a.chosen[0][2] and not b.chosen[0][2] for a, b in both]
        led = Counter(a.first for a, _ in both if not a.chosen[0][2])
        for against, chance in (("random", 1 / 4), ("load", sum(n * n for n in led.values()) / led.total() ** 2)):
            row = frame.loc[(router, "repetition, first choice", f"against {against}", "")]
            assert (row["value"], row["chance"]) == pytest.approx((np.mean(first), chance))


def dealt(here: list[Decision], k: int, ratio: float, by_weight: bool, experts: int) -> tuple[float, float, float, int]:
    """(assignments, weight, tokens) lost when every forward's tokens are dealt into buffers again, and how many tokens."""
    lost: dict[int, list[bool]] = defaultdict(list)
    weights: dict[int, list[float]] = defaultdict(list)
    forwards: dict[int, list[Decision]] = defaultdict(list)
    for d in here:
        forwards[d.of.forward].append(d)
    for some in forwards.values():
        places = ceil(ceil(round(len(some) * k * ratio / experts, 9)) / 4) * 4
        taken: Counter[int] = Counter()
        for rank in range(k):
            for d in sorted(some, key=lambda d: (-d.chosen[0][1] if by_weight else 0, d.of.token)):
                expert, weight, _ = d.chosen[rank]
                if expert < experts:  # an identity has no buffer
                    lost[d.of.token].append(taken[expert] >= places)
                    weights[d.of.token].append(weight)
                    taken[expert] += 1
    every = [x for v in lost.values() for x in v]
    mass = [(x, w) for t in lost for x, w in zip(lost[t], weights[t])]
    return (
        sum(every) / len(every), sum(w for x, w in mass if x) / sum(w for _, w in mass),
        sum(all(v) for v in lost.values()) / len(lost),
        len(lost),
    )  # fmt: skip


def test_what_other_capacities_drop(planted: tuple[Path, int]) -> None:
    """Every decision dealt again, first choices first, in token order and by the largest weight."""
    path, experts = planted
    with moescope.open(path) as store:
        frame, _ = capacity.what_if(scope.scope(store, 0), [], ratios=(0.25, 0.5, 1.0, 2.0))
    expected = []
    for stack, layer, router, k in (("decoder", 0, 1, 2), ("decoder", 1, 2, 2), ("decoder", 2, 3, 2), ("encoder", 0, 0, 1)):
        here = TRUTH.of(0, router)
        for ratio in (0.25, 0.5, 1.0, 2.0):
            for order in ("vanilla", "batch prioritized"):
                expected.append((stack, layer, router, ratio, order, *dealt(here, k, ratio, order[0] == "b", experts)))
    columns = ("stack", "layer", "router", "ratio", "order", "dropped_share", "dropped_weight", "unrouted", "n")
    for found in (frame, analyses.run("load", path, run=0).frames["capacity"]):
        some = found[found["ratio"].isin((0.25, 0.5, 1.0, 2.0))]
        same([(*r[:3], float(r[3]), *r[4:]) for r in rows(some, *columns)], expected)
