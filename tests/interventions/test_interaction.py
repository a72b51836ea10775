"""Expert × group: nothing where experts differ alike in all groups, the planted one for its group; what ablate lists."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moescope.cli.ask.ablate import _needed, _summary
from moescope.interventions.ablation.effects import effects
from moescope.interventions.ablation.plan import Job
from moescope.interventions.ablation.scores import NAMES

GROUPS, EXPERTS = list("abcd"), 6


def swept(seed: int, whole: bool, planted: float = 0.0) -> pd.DataFrame:
    """Effects of single experts of two routers on 80 documents; experts and documents differ in how much they cost everywhere.

    Documents have all groups or one (`whole`); `planted` nats a token are added to expert 0 of the first router in group c.
    """
    rng = np.random.default_rng(seed)
    targets = [((f"gate {r}", (e,)),) for r in range(2) for e in range(EXPERTS)]
    n = rng.poisson(rng.lognormal(3, 1, (80, 1)) * np.ones(4))
    if whole:
        n = 4 * n * (np.arange(4) == rng.integers(0, 4, (80, 1)))
    document, group = np.nonzero(n)
    hard, frames = np.exp(rng.normal(0, 0.5, (80, 1))), []
    for number in range(-1, len(targets)):
        cost = rng.exponential(0.03) * n * hard + 0.3 * rng.normal(size=n.shape) * np.sqrt(n) if number >= 0 else 0.0 * n
        cost = cost + planted * n * (np.arange(4) == 2) if number == 0 else cost
        frame = {"set": number, "kind": "domain", "document": document, "group": group, "n": n[document, group]}
        frames.append(pd.DataFrame(frame | dict.fromkeys(NAMES, 0.0) | {"delta_nll": cost[document, group]}))
    jobs = [Job(target, targets[(i + 1) % EXPERTS], ()) for i, target in enumerate(targets)]
    return effects(pd.concat(frames), targets, jobs, {"domain": GROUPS})


@pytest.mark.parametrize("whole", [False, True])
def test_experts_that_cost_alike_everywhere_are_for_nothing(whole: bool) -> None:
    """Against one expert of like load most cells are significant there."""
    found = [swept(seed, whole) for seed in range(2)]
    shares = {c: [(f[f["control"] == c]["q"] <= 0.05).mean() for f in found] for c in ("router", "load")}
    assert sum(share > 0 for share in shares["router"]) <= 1
    assert np.mean(shares["load"]) > 0.2
    own = found[0][found[0]["control"] == "router"]
    assert len(own) == 2 * EXPERTS * len(GROUPS)
    assert ((own["ci_low"] <= own["delta_nll"]) & (own["delta_nll"] <= own["ci_high"])).all()


@pytest.mark.parametrize("whole", [False, True])
def test_the_planted_expert_is_for_its_group(whole: bool) -> None:
    rows = swept(7, whole, planted=0.3)
    rows = rows[(rows["control"] == "router") & (rows["q"] <= 0.05) & (rows["delta_nll"] >= 0.1)]
    assert rows[["job", "group"]].values.tolist() == [[0, "c"]]
    assert rows["ci_low"].iloc[0] > 0.1


def test_the_figure_by_hand() -> None:
    """Two experts, groups of 10 tokens: 3 nats against 1 in a, 1 against 1 in b: (2 - 0) / 10, a less b."""
    targets = [(("gate", (0,)),), (("gate", (1,)),)]
    costs = {-1: (0.0, 0.0), 0: (3.0, 1.0), 1: (1.0, 1.0)}
    frames = [
        {"set": number, "kind": "domain", "document": d, "group": g, "n": 10, **dict.fromkeys(NAMES, 0.0), "delta_nll": cost[g]}
        for number, cost in costs.items() for d in range(6) for g in range(2)
    ]  # fmt: skip
    found = effects(pd.DataFrame(frames), targets, [Job(t, None, ()) for t in targets], {"domain": ["a", "b"]})
    rows = found[found["control"] == "router"].set_index(["job", "group"])
    assert rows["delta_nll"].to_dict() == pytest.approx({(0, "a"): 0.2, (0, "b"): -0.2, (1, "a"): -0.2, (1, "b"): 0.2})
    assert rows["control_delta_nll"].to_dict() == pytest.approx({(0, "a"): 0.1, (0, "b"): 0.1, (1, "a"): 0.3, (1, "b"): 0.1})


def test_ablate_lists_what_is_itself_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """An expert without an effect is not listed because its control was needed, nor because its control harms."""
    row = {"mode": "zero", "group_kind": "domain", "load": 0.1, "q": 0.01, "n": 100}
    sets = {"idle": (0.0, -5.93, 0.9), "rescued": (0.0, 5.93, 0.9), "needed": (0.5, 0.4, 0.01), "like all": (0.5, 0.0, 0.01)}
    rows = pd.DataFrame([
        row | {"experts": name, "group": "law", "control": control, "delta_nll": value, "ci_low": value - 0.1,
               "ci_high": value + 0.1, "q": q if control == "none" else 0.01}
        for name, (own, beyond, q) in sets.items() for control, value in (("none", own), ("load", beyond))
    ])  # fmt: skip
    assert _needed(rows)["experts"].tolist() == ["needed"]
    few = rows[rows["control"] == "none"].assign(group_kind="all", ci_low=np.nan, ci_high=np.nan)
    _summary(pd.concat([rows, few]), Path("x.duckdb"))
    said = capsys.readouterr().out
    assert "domain law: +0.5000 [+0.4000, +0.6000], of which beyond equal load +0.4000 [+0.3000, +0.5000]" in said
    assert "5.93" not in said
    assert "nan" not in said
