"""Wan 2.2: the pipeline chooses a whole denoiser by timestep; what is traced is one model around both."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import System, wan
from systems_checks import executes, halved, moved

import moescope
from moescope.contracts import find
from moescope.errors import InputError
from moescope.models.stages import first_call, staged


def test_which_denoiser_ran(tmp_path: Path) -> None:
    """Two forwards a step (guidance), of the high-noise denoiser at timestep 1000, of the other at 667, 334 and 1; the videos
    are those of the pipeline alone, and its denoisers are its own again."""
    pipe, call = wan()
    alone = pipe(**call).frames
    with staged(pipe) as model:
        inputs = first_call(model, lambda: pipe(**{**call, "num_inference_steps": 1}))
        with moescope.Tracer(model, tmp_path / "run.duckdb", inputs=inputs) as tracer:
            traced = pipe(**call).frames
        assert [p.identical for p in tracer.proof] == [True]
    assert torch.equal(alone, traced)
    assert [vars(part).get("forward") for part in (pipe.transformer, pipe.transformer_2)] == [None, None]
    assert torch.equal(pipe(**call).frames, alone)
    store = moescope.open(tmp_path / "run.duckdb")
    rows = store.rows("select forward, list(expert), list(weight) from assignments group by forward order by forward")
    assert [(experts, weights) for _, experts, weights in rows] == [([0, 0], [1, 1])] * 2 + [([1, 1], [1, 1])] * 6


def test_site() -> None:
    """One site, two experts that are whole models, a decision for each sample."""
    pipe, _ = wan()
    with staged(pipe) as model:
        (site,) = find(model)
    assert (site.contract.name, site.kind, site.unit, site.n_experts) == ("static_streams", "static", "sequence", 2)
    assert site.expert_names == {0: "transformer", 1: "transformer_2"}


@pytest.mark.parametrize("edit", [moved, halved], ids=["moved", "halved"])
def test_the_other_denoiser_is_executed(edit: Any) -> None:
    """The step is made by the denoiser that is written."""
    pipe, call = wan()
    with staged(pipe) as model:
        executes(System(model, first_call(model, lambda: pipe(**{**call, "num_inference_steps": 1}))), edit)


def test_one_denoiser_is_no_stages() -> None:
    """A pipeline without a second denoiser is refused with what to do instead."""
    pipe, _ = wan()
    pipe.transformer_2 = None
    with (
        pytest.raises(
            InputError, match=r"WanPipeline has transformer of transformer, transformer_2, .* Tracer\(pipe\.transformer"
        ),
        staged(pipe),
    ):
        pass
