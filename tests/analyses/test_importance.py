"""Scores of experts: two sequences by hand, the released code's axis, agreement, and what a trace measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from moescope import analyses
from moescope.errors import AnalysisError, InputError
from moescope.store import RunWriter
from moescope.store.write.change import change_store

# router: per token, experts and weights by rank; sequence 0 has tokens 0 and 1, sequence 1 has 2, 3, 4 and 5
EXPERTS = {
    0: [(0, 1), (0, 2), (1, 2), (1, 0), (1, 2), (1, 2)],
    1: [(2, 1), (2, 0), (2, 1), (0, 2), (0, 2), (0, 1)],
}
WEIGHTS = [(0.6, 0.4), (0.5, 0.5), (0.7, 0.3), (0.9, 0.1), (0.8, 0.2), (0.6, 0.4)]
ROUTES = {router: list(zip(experts, WEIGHTS)) for router, experts in EXPERTS.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "x.duckdb"
    writer = RunWriter.create(where, synthetic._head((1, 2), 4, 2, "by hand"))
    writer.add(
        "sequences",
        {"sequence": [0, 1], "source": "s", "source_row": [0, 1], "part": 0, "document": ["a", "b"], "stack": "decoder"},
    )
    writer.add(
        "tokens",
        {
            "token": np.arange(6),
            "sequence": [0, 0, 1, 1, 1, 1],
            "position": [0, 1, 0, 1, 2, 3],
            "unit": "text",
            "vocab_id": 0,
            "special": False,
            "generated": False,
        },
    )
    writer.add("forwards", {"forward": 0, "phase": "prefill", "step": 0, "batch_size": 2, "tokens": 6})
    for router, rows in ROUTES.items():
        columns: dict[str, Any] = {}
        for rank in range(2):
            columns[f"e{rank}"] = np.array([experts[rank] for experts, _ in rows], "u2")
            columns[f"w{rank}"] = np.array([weights[rank] for _, weights in rows], "f4")
        keys = {"forward": 0, "router": router, "iteration": 0, "token": np.arange(6), "slots": 16, "dropped": 0}
        writer.add("routes_2", keys | {"log_sum_exp": 0.0, "entropy": 0.0, "margin": 0.0} | columns)
    writer.close({"status": "complete"}, {"batches": 1})
    return where


def tables() -> dict[tuple[str, str], np.ndarray]:
    """The scores by loops over ROUTES: (routers, experts)."""
    n, gate, paper_gate, paper_token = (np.zeros((2, 4)) for _ in range(4))
    length = [2, 2, 4, 4, 4, 4]
    for router, rows in ROUTES.items():
        for token, (experts, weights) in enumerate(rows):
            for expert, weight in zip(experts, weights):
                n[router, expert] += 1
                gate[router, expert] += weight
                paper_gate[router, expert] += weight / length[token] / 2
                paper_token[router, expert] += 1 / 2 / length[token] / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            ("frequency", "definition"): n / 12,
            ("gate mass", "definition"): gate / 6,
            ("mean gate", "definition"): np.nan_to_num(gate / n),
            ("ESFT average gate", "paper"): paper_gate,
            ("ESFT token selection", "paper"): paper_token,
            ("ESFT average gate", "released code"): np.nan_to_num(gate / gate.sum(axis=0)),
            ("ESFT token selection", "released code"): np.nan_to_num(n / n.sum(axis=0)),
            ("ESFT average gate", "released code, axis set right"): gate / gate.sum(axis=1, keepdims=True),
            ("ESFT token selection", "released code, axis set right"): n / n.sum(axis=1, keepdims=True),
        }


def test_by_hand(path: Path) -> None:
    """Expert 0 of the first router: gate (0.6 + 0.5)/2 of sequence 0 and 0.1/4 of sequence 1, half of each: 0.2875."""
    answer = analyses.run("importance", path)
    for (name, form), expected in tables().items():
        rows = answer.figures(name, estimator=form).sort_values(["router", "expert"])
        np.testing.assert_allclose(rows["value"].to_numpy().reshape(2, 4), expected, atol=1e-7, err_msg=f"{name} {form}")
    row = answer.figures("ESFT average gate", estimator="paper", router=0, expert=0).iloc[0]
    assert row["value"] == pytest.approx(0.2875, abs=1e-7)
    assert row["layer"] == 1
    assert row["units"] == 2
    assert np.isnan(row["ci_low"])
    assert any("fewer than 5 documents" in note for note in answer.notes)


def test_released_code_chooses_other_experts(path: Path) -> None:
    """By layer expert 1 leads the first router; divided over layers its expert 1 scores 3.4/4.5 and the layer sums past one."""
    chosen = analyses.run("importance", path, top_p=0.5).frames["chosen"].set_index(["router", "score", "form"])
    assert chosen.loc[(0, "ESFT average gate", "released code, axis set right"), "chosen"] == "1"
    assert chosen.loc[(0, "ESFT average gate", "paper"), "chosen"] == "1, 0"
    assert chosen.loc[(1, "ESFT average gate", "released code"), "chosen"] == "0"
    assert chosen.loc[(0, "ESFT average gate", "released code"), "layer_sum"] == pytest.approx(
        tables()["ESFT average gate", "released code"][0].sum()
    )
    assert chosen.loc[(0, "ESFT average gate", "paper"), "layer_sum"] == pytest.approx(1, abs=1e-6)


def test_agreement(tmp_path: Path) -> None:
    def lean(read: synthetic.Inputs, layer: int, logits: np.ndarray) -> None:
        logits += 0.7 * np.arange(8)

    synthetic.make(tmp_path / "x.duckdb", lean, tokens=16)
    answer = analyses.run("importance", tmp_path / "x.duckdb")
    rows = answer.figures("rank correlation of scores", subset="frequency ~ gate mass")
    assert len(rows) == 3
    assert (rows["value"] > 0.9).all()
    assert rows["p"].isna().all()  # made of the same counts: no null to be had
    assert rows["null"].str.startswith("none").all()
    assert ((rows["ci_low"] <= rows["value"]) & (rows["ci_high"] <= 1)).all()
    assert set(answer.charts()) == {"gate mass", "ESFT average gate"}


def test_what_a_trace_measured(path: Path) -> None:
    """Super experts: above the 99.5th percentile and a tenth of the largest, in the first three quarters of layers."""
    assert any("No ean, weighted_ean, reap, max_down_proj here" in note for note in analyses.run("importance", path).notes)

    def change(con: Any) -> None:
        for router, layer in ((0, 1), (1, 2)):
            for expert in range(4):
                largest = 900.0 if (router, expert) == (0, 2) else 1.0 + expert
                for name, value in (("reap", 0.5 + expert), ("max_down_proj", largest)):
                    row = [router, layer, expert, name, value]
                    columns = "run, router, layer, expert, name, estimator, value, n"
                    con.execute(f"insert into measures ({columns}) values (0, ?, ?, ?, ?, '', ?, 6)", row)

    change_store(path, change)
    answer = analyses.run("importance", path)
    assert answer.figures("reap")["value"].tolist() == [0.5, 1.5, 2.5, 3.5] * 2
    found = answer.figures("super expert")
    assert found[found["value"] == 1][["router", "expert"]].values.tolist() == [[0, 2]]
    assert any("No ean, weighted_ean here" in note for note in answer.notes)


def test_refusal(path: Path) -> None:
    with pytest.raises(InputError, match="the option top_p of importance must be a finite number from 0 to 1, not 2"):
        analyses.run("importance", path, top_p=2)
    with pytest.raises(AnalysisError, match="above 0 and up to 1, not 0"):
        analyses.run("importance", path, top_p=0)
