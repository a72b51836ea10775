"""How often a planted pair of experts, and a planted expert of verbs, are named in a store, beside a chi-square."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import worlds
from scipy import stats

from moescope import analyses
from moescope.store import Store, open_store

SIZE, STRENGTHS, WORLDS = (16, 2), (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), 20
PAIR, EXPERT = (3, 11), 5
Answer = analyses.Answer


def _pair_named(answer: Answer) -> bool:
    rows = answer.frames["pairs"]
    own = (rows["router"] == 0) & (rows["expert"] == PAIR[0]) & (rows["other"] == PAIR[1])
    return bool((rows.loc[own, "q"] <= 0.05).any())


def _verbs_named(answer: Answer) -> bool:
    rows = answer.frames["experts"]
    return bool(((rows["router"] == 0) & (rows["expert"] == EXPERT) & (rows["label"] == "upos=VERB")).any())


def _pair_plainly(store: Store) -> float:
    """p of a chi-square of who holds both experts, of all tokens alike, times the pairs and routers."""
    chosen = _chosen(store, "true")
    a, b = ((chosen == expert).any(1) for expert in PAIR)
    seen = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    found = stats.chi2_contingency(seen, correction=False)
    return min(float(found.pvalue) * SIZE[0] * (SIZE[0] - 1), 1.0) if seen[0, 0] > found.expected_freq[0, 0] else 1.0


def _verbs_plainly(store: Store) -> float:
    """p of a chi-square of verbs by experts, times the routers."""
    verbs, others = (_chosen(store, f"label {sign} 'VERB'") for sign in ("=", "<>"))
    seen = np.stack([np.bincount(x[:, 0], minlength=SIZE[0]) for x in (verbs, others)])
    return min(float(stats.chi2_contingency(seen[:, seen.sum(0) > 0]).pvalue) * 2, 1.0)


def _chosen(store: Store, only: str) -> Any:
    """(tokens, k) of router 0."""
    sql = f"""select list(expert order by rank) from assignments join token_labels using (token)
where router = 0 and kind = 'upos' and {only} group by token"""
    return np.array([experts for (experts,) in store.rows(sql)])


CASES: dict[str, tuple[str, Callable[[float], Any], Callable[[Answer], bool], Callable[[Store], float], dict[str, Any]]] = {
    "a pair of experts whose logits tokens move together, 2 routers of 16, top-2, 48 documents of 120": (
        "structure", lambda s: worlds.Together(0, PAIR, s), _pair_named, _pair_plainly, {},
    ),
    "an expert of verbs, 2 routers of 16, top-2, 48 documents of 120": (
        "syntax_experts", lambda s: worlds.Plant(0, EXPERT, s, None), _verbs_named, _verbs_plainly, {"kinds": "upos"},
    ),
}  # fmt: skip


def curve(case: str) -> dict[str, Any]:
    """{"worlds", "named", "chi-square", "by"}; see `power.curve`."""
    name, plant, named, plainly, options = CASES[case]
    hits: dict[str, list[float]] = {}
    for strength in STRENGTHS:
        found = [_world(seed, plant(strength), name, named, plainly, options) for seed in range(WORLDS)]
        hits[str(strength)] = np.mean(found, axis=0).tolist()
    rates = {"named": {s: r[0] for s, r in hits.items()}, "chi-square": {s: r[1] for s, r in hits.items()}}
    return {"worlds": WORLDS, "by": name, **rates}


def _world(seed: int, plant: Any, name: str, named: Any, plainly: Any, options: dict[str, Any]) -> tuple[bool, bool]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.duckdb"
        worlds.make(path, worlds.WORLDS["equal"], 90_000 + seed, SIZE, (plant,))
        with open_store(path) as store:
            return named(analyses.run(name, store, **options)), plainly(store) <= 0.05
