"""What the Compare page counts: differences of load, agreement with its chance, changed tokens; against a recount."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pages import part, rows, same
from recounted import EXPERTS, ROUTERS, Decision, Truth, spread, written

from moescope import statistics as st

pytestmark = pytest.mark.usefixtures("recounted_shown")
TRUTH = Truth()
LATER = len(ROUTERS)  # the second run's routers follow the first's
TOKENS = len(TRUTH.tokens) // 2


@pytest.mark.parametrize("counted", ["asked", "ran"])
def test_difference_of_load(counted: str) -> None:
    """B minus A, whichever is A; of what was asked for and of what ran."""

    def of(decisions: list[Decision], expert: int) -> float:
        mine = [d.ran if counted == "ran" else [e for e, _, _ in d.chosen] for d in decisions]
        return sum(expert in some for some in mine) / sum(map(len, mine))

    for a, b in ((0, 1), (1, 0)):
        expected = []
        for router, stack, layer, _ in ROUTERS:
            one, two = TRUTH.of(a, router + LATER * a), TRUTH.of(b, router + LATER * b)
            for e in range(EXPERTS):
                shares = of(one, e), of(two, e)
                expected.append((router + LATER * a, stack, layer, e, *shares, shares[1] - shares[0]))
        same(rows(part("queries.comparison").loads(a, b, counted)[0]), sorted(expected))


def test_agreement() -> None:
    """By router: share of tokens with the same first choice, what both loads give by chance, the bootstrap once more."""
    expected = []
    for router, stack, layer, _ in ROUTERS:
        one = {d.of.token: d for d in TRUTH.of(0, router)}
        two = {d.of.token - TOKENS: d.first for d in TRUTH.of(1, router + LATER)}
        assert one.keys() == two.keys()
        loads = [Counter(d.first for d in one.values()), Counter(two.values())]
        chance = sum(loads[0][e] * loads[1][e] for e in range(EXPERTS)) / len(one) ** 2
        kept = [(d.of.document, d.first == two[t]) for t, d in one.items()]
        agreed = sum(same for _, same in kept) / len(kept)
        expected.append((router, stack, layer, agreed, chance, len(kept), 6))
    frame = part("queries.comparison").agreement(0, 1)[0]
    columns = ("router", "stack", "layer", "agreement", "chance", "tokens", "documents")
    same(rows(frame, *columns), sorted(expected, key=lambda row: row[1:3]))


def test_interval_of_agreement() -> None:
    """Documents drawn with all of their tokens, as every interval over documents."""
    weights = st.bootstrap_weights(6)
    for row in part("queries.comparison").agreement(0, 1)[0].itertuples():
        two = {d.of.token - TOKENS: d.first for d in TRUTH.of(1, row.router + LATER)}
        kept: dict[str, list[bool]] = {f"d{n}": [] for n in range(6)}
        for d in TRUTH.of(0, row.router):
            kept[d.of.document].append(d.first == two[d.of.token])
        same, size = (np.array([f(k) for k in kept.values()], float) for f in (sum, len))
        ends = spread(same.sum() / size.sum(), (weights @ same) / (weights @ size), bounds=(0, 1))
        assert (row.low, row.high) == pytest.approx(ends, rel=1e-6)


def test_tokens_that_changed_most() -> None:
    first = {(d.of.run, d.router % LATER, d.of.token - TOKENS * d.of.run): d for d in TRUTH.decisions}
    expected = []
    for token in range(TOKENS):
        routers = [r for r, *_ in ROUTERS if (0, r, token) in first]
        changed = sum(first[0, r, token].first != first[1, r, token].first for r in routers)
        of = first[0, routers[0], token].of
        about = (token, of.sequence, of.position, of.text, of.document)
        if changed:
            expected.append((*about, changed, len(routers), changed / len(routers)))
    expected.sort(key=lambda row: (-row[5], row[0]))
    same(rows(part("queries.comparison").changed(0, 1)[0]), [(*row, len(expected)) for row in expected[:200]])
    assert part("queries.comparison").changed(0, 0)[0].empty  # nothing changed: nothing is listed


def test_sequences_that_both_have() -> None:
    found = part("queries.comparison").shared(0, 1)
    sequences = {t.sequence: t for t in TRUTH.tokens if t.run == 0}
    texts = {s: " ".join(t.text[1:] for t in TRUTH.tokens if t.sequence == s)[:80] for s in sequences}
    assert [tuple(row.values()) for row in found] == [
        (s, s + len(sequences), t.document, t.stack, t.domain, texts[s]) for s, t in sequences.items()
    ]
    assert all(row["b"] == row["a"] - len(sequences) for row in part("queries.comparison").shared(1, 0))


@pytest.mark.parametrize(("stack", "other"), [("encoder", "encoder"), ("decoder", "decoder"), ("encoder", "decoder")])
def test_texts_are_of_the_stack_that_was_chosen(stack: str, other: str) -> None:
    """On either side: what stands beside a layer of the encoder is the encoder's text."""
    at = {t.sequence: t.stack for t in TRUTH.tokens}
    found = part("queries.comparison").shared(0, 1, stack, other)
    assert {(at[row["a"]], at[row["b"]]) for row in found} == {(stack, other)}
    assert len(found) == sum(1 for s, x in at.items() if x == stack and s < len(at) // 2)


def test_what_both_runs_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of each run, and of them those in sequences of both."""
    import duckdb

    comparison = part("queries.comparison")
    assert comparison.overlap(0, 1) == {"a": TOKENS, "b": TOKENS, "a_shared": TOKENS, "b_shared": TOKENS}
    path = written(tmp_path / "b.duckdb", TRUTH)
    with duckdb.connect(str(path)) as con:
        con.execute("update sequences set source = 'other' where sequence = 0")
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    alone = sum(t.sequence == 0 for t in TRUTH.tokens)
    expected = {"a": TOKENS, "b": TOKENS, "a_shared": TOKENS - alone, "b_shared": TOKENS - alone}
    assert comparison.overlap(0, 1) == expected


@pytest.mark.parametrize(("family", "gone", "alike"), [("x", None, True), ("y", None, False), ("x", 7, False)])
def test_alike(family: str, gone: int | None, alike: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One family, and the same routers; a router that only one of them has makes them unlike."""
    import duckdb

    path = written(tmp_path / "b.duckdb", TRUTH)
    if gone is not None:
        with duckdb.connect(str(path)) as con:
            con.execute("delete from routers where router = ?", [gone])
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    assert part("queries.comparison").alike({"run": 0, "family": "x"}, {"run": 1, "family": family}) is alike


def test_another_number_of_experts_makes_runs_unlike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    path = written(tmp_path / "b.duckdb", TRUTH)
    with duckdb.connect(str(path)) as con:
        con.execute("update routers set experts = 8 where router = 6")
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    assert not part("queries.comparison").alike({"run": 0, "family": "x"}, {"run": 1, "family": "x"})
