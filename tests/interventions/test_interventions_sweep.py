"""Sweeps over models whose truth is planted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from planted import planted, texts, upcycled

import moescope
from moescope.cli import main
from moescope.errors import InputError
from moescope.interventions import RouteAround, ablate, intervene, overrides
from moescope.models.loading import Loaded


@pytest.fixture
def traced(tmp_path: Path) -> tuple[Loaded, Path]:
    loaded = Loaded("planted", planted())
    moescope.trace(loaded, texts(), tmp_path / "p.duckdb", batch_size=16)
    return loaded, tmp_path / "p.duckdb"


def test_the_planted_expert_is_found_in_its_domain_only(traced: Any) -> None:
    loaded, store = traced
    rows = ablate(loaded, store, mode="zero", by=["domain"], sweep=True)
    plain = rows[(rows["group_kind"] == "domain") & (rows["control"] == "none")].set_index(["expert", "group"])
    hit = plain.loc[(0, "a")]
    assert hit["delta_nll"] > 0.5
    assert hit["ci_low"] > 0
    assert hit["q"] < 0.05
    rest = plain.drop(index=(0, "a"))
    assert float(rest["delta_nll"].abs().max()) == 0
    assert float(rest["p"].min()) == 1
    matched = rows[(rows["group_kind"] == "domain") & (rows["control"] == "load")].set_index(["expert", "group"])
    assert matched.loc[(0, "a"), "control_delta_nll"] == 0  # an expert of equal load does nothing
    assert matched.loc[(0, "a"), "delta_nll"] == hit["delta_nll"]
    with moescope.open(store) as opened:
        found = opened.rows(
            "select layer, expert, \"group\" from ablation_effects where control = 'none' and group_kind = 'domain' and q < 0.1"
        )
    assert found == [(0, 0, "a")]
    assert not store.with_name(store.name + ".ablations").exists()


def test_identical_experts_do_not_matter_when_routed_around(tmp_path: Path) -> None:
    loaded = Loaded("upcycled", upcycled())
    moescope.trace(loaded, texts(2), tmp_path / "u.duckdb")
    around = ablate(loaded, tmp_path / "u.duckdb", {(None, 0): [1]}, mode="route-around")
    zero = ablate(loaded, tmp_path / "u.duckdb", {(None, 0): [1]}, mode="zero")
    assert float(around["delta_nll"].abs().max()) < 1e-6
    assert float(zero["kl"].max()) > 1e-5


@pytest.mark.slow
def test_shared_work_gives_the_same_rows(traced: Any) -> None:
    loaded, store = traced
    frames = [
        ablate(loaded, store, mode=mode, by=["domain"], sweep=True, share=s) for mode in ("zero", "mean") for s in (True, False)
    ]
    for shared, plain in (frames[:2], frames[2:]):
        np.testing.assert_array_equal(shared["delta_nll"], plain["delta_nll"])
        np.testing.assert_array_equal(shared["kl"], plain["kl"])


def test_a_sweep_that_was_cut_off_goes_on(traced: Any) -> None:
    loaded, store = traced
    whole = ablate(loaded, store, mode="zero", sweep=True)
    done: list[int] = []

    def cut(progress: dict[str, Any]) -> None:
        done.append(progress["batches"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(loaded, store, mode="zero", sweep=True, report=cut)
    (folder,) = store.with_name(store.name + ".ablations").iterdir()
    shard = folder / "batch-000000.parquet"
    stamp = shard.stat().st_mtime_ns
    seen: list[int] = []
    again = ablate(loaded, store, mode="zero", sweep=True, report=lambda p: seen.append(shard.stat().st_mtime_ns))
    assert set(seen) == {stamp}
    np.testing.assert_array_equal(whole["delta_nll"], again["delta_nll"])


def test_what_cannot_be_ablated_is_said_in_a_sentence(traced: Any, tmp_path: Path) -> None:
    loaded, store = traced
    with pytest.raises(InputError, match="has no labels of kind 'upos': it has domain"):
        ablate(loaded, store, sweep=True, by=["upos"])
    with pytest.raises(InputError, match="say which experts"):
        ablate(loaded, store)
    with pytest.raises(InputError, match="no complete run of this model"):
        ablate(Loaded("other", upcycled()), store, sweep=True)
    with pytest.raises(InputError, match="masking 4 leaves 0"):
        ablate(loaded, store, {(None, 0): None})


def test_a_tracer_records_what_is_executed_under_an_edit(traced: Any, tmp_path: Path) -> None:
    loaded, _ = traced
    edit = RouteAround(layers=0, experts=[0])
    ids = torch.tensor([[4, 5, 6, 12, 13]])
    with (
        moescope.Tracer(loaded.model, tmp_path / "e.duckdb", run={"overrides": overrides(edit)}),
        intervene(loaded.model, edit),
    ):
        loaded.model(input_ids=ids)
    with moescope.open(tmp_path / "e.duckdb") as opened:
        assert opened.rows("select count(*) from assignments where expert = 0") == [(0,)]
        assert opened.rows("select overrides->>'$.interventions[0].mode' from runs") == [("route-around",)]


@pytest.mark.slow
def test_the_command_traces_ablates_and_tells(tmp_path: Path) -> None:
    store = str(tmp_path / "m.duckdb")
    call = ["ablate", "mixtral", "--data", "text", "--limit", "8", "--store", store, "--experts", "3:0,1", "--by", "domain"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    assert "1 sets, route-around" in done.output
    with moescope.open(store) as opened:
        rows = opened.rows("select distinct experts, mode, group_kind, control from ablation_effects order by all")
    assert {json.dumps(json.loads(r[0])) for r in rows} == {'{"model.layers.3.mlp.gate": [0, 1]}'}
    assert {r[1:] for r in rows} == {("route-around", k, c) for k in ("all", "domain") for c in ("none", "load", "random")}
    wrong = CliRunner().invoke(main, ["ablate", "mixtral", "--store", store, "--experts", "9:0"])
    assert (wrong.exit_code, "no router in layer 9" in wrong.output) == (2, True)
