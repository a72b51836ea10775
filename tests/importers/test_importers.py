"""ESFT's released decisions in a store."""

import json

import numpy as np
import pytest

import moescope
from moescope import analyses
from moescope.errors import InputError
from moescope.importers.esft import import_esft


def test_a_hand_written_file(tmp_path):
    (tmp_path / "law").mkdir()
    for layer in (1, 2):
        (tmp_path / "law" / f"expert_weights_{layer}.txt").write_text("0\t2\t1\t0\t\t0.25\t0.5\t0.125\t0.0625\n")
    store = tmp_path / "run.duckdb"
    assert import_esft(tmp_path / "law", store, "law", experts=3, k=2) == 0
    with moescope.open(store) as opened:
        rows = opened.rows(
            "select layer, token, rank, expert, weight, slot from assignments join routers using (router) order by all"
        )
        each = [(0, 0, 2, 0.5, 1), (0, 1, 0, 0.25, 0), (1, 0, 1, 0.125, 0), (1, 1, 0, 0.0625, 1)]
        assert rows == [(layer, *row) for layer in (1, 2) for row in each]
        assert opened.rows("select status, decisions, dataset from runs") == [("complete", 4, "law")]


@pytest.mark.parametrize("line", ["0\t1\t\t0.5\n", "0\t9\t\t0.5\t0.5\n", "0\tx\t\t0.5\t0.5\n", "0\t1\t2\t\t0.5\t0.5\t0.1\n"])
def test_broken_files_are_refused_and_leave_nothing(tmp_path, line):
    (tmp_path / "expert_weights_1.txt").write_text(line)
    store = tmp_path / "run.duckdb"
    with pytest.raises(InputError, match="line 1 of"):
        import_esft(tmp_path, store, experts=3, k=2)
    assert not store.exists()


def test_no_files(tmp_path):
    with pytest.raises(InputError, match="holds no expert_weights"):
        import_esft(tmp_path, tmp_path / "run.duckdb")


@pytest.mark.slow
def test_released_decisions_have_the_released_scores(shared, tmp_path):
    """summary.json beside the decisions holds ESFT's own token scores: mean over samples of each expert's share."""
    store = tmp_path / "esft.duckdb"
    import_esft(shared / "data" / "esft", store, "ESFT")
    released = json.loads((shared / "data" / "esft" / "summary" / "summary.json").read_text())["token_scores"]
    with moescope.open(store) as opened:
        assert opened.rows("select count(*), min(experts), max(top_k), min(layer), max(layer) from routers") == [
            (26, 64, 6, 1, 26)
        ]
        found = opened.rows("select layer, expert, share from label_load where label = 'summary'")
        bits = opened.rows(
            "select label, round(min(h), 3), round(max(h), 3) from (select label, router, -sum(share * log2(share)) as h "
            "from label_load where share > 0 group by all) group by label order by label"
        )
        answer = analyses.run("specialization", opened)
    assert max(abs(share - released[str(layer)][str(expert)]) for layer, expert, share in found) < 1e-4
    assert bits == [("law", 5.545, 5.941), ("summary", 5.421, 5.901)]
    info = answer.figures("I(label; expert) (bits)", estimator="less null mean")
    assert (info["p"] < 0.01).all()
    assert np.isfinite(info["ci_low"]).all()


@pytest.mark.slow
def test_released_gate_scores_by_name(shared, tmp_path):
    """summary.json's gate_scores are sums of gates over tokens, by layer, to the four places that were released."""
    import_esft(shared / "data" / "esft" / "summary", tmp_path / "esft.duckdb", "summary")
    released = json.loads((shared / "data" / "esft" / "summary" / "summary.json").read_text())
    answer = analyses.run("importance", tmp_path / "esft.duckdb")
    for name, form, key in (("ESFT average gate", "released gate_scores", "gate_scores"),
                            ("ESFT token selection", "released code, axis set right", "token_scores")):  # fmt: skip
        rows = answer.figures(name, estimator=form)
        off = [abs(row.value - released[key][str(row.layer)][str(row.expert)]) for row in rows.itertuples()]
        assert len(off) == 26 * 64
        assert max(off) <= 5e-5, form
