"""Modalities: hand-made tables, planted division that is found, chance that is not; LIMoE's two entropies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told

import moescope
from moescope import analyses
from moescope.analyses import Answer
from moescope.errors import AnalysisError

BITS = "I(modality; expert) (bits)"
ROUTER = {"router": 0, "experts": 2, "top_k": 1, "score": "softmax"}


def asked(path: Path, **options: Any) -> Answer:
    with moescope.open(path) as store:
        return analyses.run("modality", store, **options)


def test_rows_by_hand(tmp_path: Path) -> None:
    """Six documents of a patch and a word: patches go to expert 0; words by turns to 0 and 1."""
    chosen = np.array([[0, 0, 0, 1] * 3])[:, :, None]
    entropy = {0: np.array([[0.25, 0.5, 0.25, 0.0] * 3])}
    said = asked(
        told.written(tmp_path / "m.duckdb", [ROUTER], {0: chosen}, [], tokens=2, units=("patch", "text"), entropy=entropy)
    )
    bits, ln2 = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5, np.log(2)
    columns = ["name", "estimator", "expert", "subset", "value", "chance", "n", "units"]
    rows = said.frames["figures"][columns].astype(object).where(lambda f: f.notna(), None).values.tolist()
    wanted = [
        [BITS, "plug-in", None, "modality", bits, 0, 12, 6],
        ["share of load by modality", "definition", 0, "modality=image", 1, 0.75, 6, 6],
        ["share of load by modality", "definition", 1, "modality=image", 0, 0.25, 6, 6],
        ["share of load by modality", "definition", 0, "modality=text", 0.5, 0.75, 6, 6],
        ["share of load by modality", "definition", 1, "modality=text", 0.5, 0.25, 6, 6],
        ["JSD (bits)", "pairs", None, "modality=image, text", bits, 0, 12, 6],
        ["global entropy (nats)", "of the load", None, "modality=image", 0, ln2, 6, 6],
        ["global entropy (nats)", "of the load", None, "modality=text", ln2, ln2, 6, 6],
        ["local entropy (nats)", "definition", None, "modality=image", 0.25, ln2, 6, 6],
        ["local entropy (nats)", "definition", None, "modality=text", 0.25, ln2, 6, 6],
    ]
    assert [row for row in rows if row[1] != "less null mean"] == [pytest.approx(row) for row in wanted]


APART = {"within documents": (("patch", "text"), 8), "by document": (("patch",) * 8 + ("text",) * 8, 8)}


@pytest.mark.parametrize("planted", [True, False])
@pytest.mark.parametrize("case", APART)
def test_planted_is_found_and_chance_is_not(case: str, planted: bool, tmp_path: Path) -> None:
    units, tokens = APART[case]
    rng = np.random.default_rng(3)
    chosen = np.stack([rng.choice(4, 8, p=p) for p in rng.dirichlet(np.full(4, 2.0), 24)]).reshape(1, -1, 1)
    patch = np.array([units[i % len(units)] == "patch" for i in range(24 * 8)])
    if planted:
        chosen[0, patch & (np.arange(192) % 3 > 0), 0] = 1
    path = told.written(tmp_path / "m.duckdb", [{**ROUTER, "experts": 4}], {0: chosen}, [], tokens=tokens, units=units)
    said = asked(path)
    row = said.figures(BITS, estimator="less null mean").iloc[0]
    assert (row["q"] <= 0.05) == planted
    if planted:
        assert row["ci_low"] > 0
    assert ("Experts divide" in said.verdict.follows) == planted


def test_global_entropy_of_mean_probabilities_where_logits_are_stored(tmp_path: Path) -> None:
    """Against sums over the rows of `logits`, in NumPy."""
    import torch

    from moescope.models.zoo.modalities import limoe

    model: Any = limoe.build()
    with moescope.Tracer(model, tmp_path / "limoe.duckdb", logits=1.0), torch.no_grad():
        for _ in range(2):
            model(**limoe.example(model))
    with moescope.open(tmp_path / "limoe.duckdb") as store:
        said = analyses.run("modality", store)
        rows = store.rows("select router, unit, logits from logits join tokens using (token)")
    found = said.figures("global entropy (nats)", estimator="of mean probabilities")
    wanted = {}
    for router, unit in {(r, u) for r, u, _ in rows}:
        z = np.array([x for r, u, x in rows if (r, u) == (router, unit)], dtype=float)
        mean = (np.exp(z) / np.exp(z).sum(1, keepdims=True)).mean(0)
        wanted[router, f"modality={'image' if unit == 'patch' else unit}"] = -(mean * np.log(mean)).sum()
    assert {(r.router, r.subset): r.value for r in found.itertuples()} == pytest.approx(wanted, rel=1e-5)
    assert {name for _, name in wanted} == {"modality=image", "modality=text"}


def test_one_modality_is_refused(tmp_path: Path) -> None:
    path = told.written(tmp_path / "one.duckdb", [ROUTER], {0: np.zeros((1, 4, 1), int)}, [])
    with pytest.raises(AnalysisError, match=r"all tokens of run 0 are of one modality \(image\)"):
        asked(path)
