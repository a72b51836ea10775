"""Activations summed up during a trace against a recomputation by hand."""

from pathlib import Path

import pytest
import torch
from small import ids, mixtral

import moescope
from moescope.errors import InputError


def test_importance_by_hand(tmp_path: Path) -> None:
    """EAN, weighted EAN, REAP and the largest activation of every expert, padding left out."""
    model, x = mixtral(layers=1), ids(2, 6)
    mask = torch.ones_like(x)
    mask[0, :2] = 0
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["importance"]):
        model(x, attention_mask=mask)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    experts = model.model.layers[0].mlp.experts
    handle = experts.register_forward_pre_hook(lambda _, a: seen.append(a))
    with torch.no_grad():
        model(x, attention_mask=mask)
        handle.remove()
        hidden, index, weight = seen[0]
        real = mask.flatten().bool()
        for expert in range(8):
            rows, place = ((index == expert) & real[:, None]).nonzero(as_tuple=True)
            gate, up = (hidden[rows] @ experts.gate_up_proj[expert].T).chunk(2, -1)
            made = (torch.nn.functional.silu(gate) * up) @ experts.down_proj[expert].T
            norm, g = made.norm(dim=-1), weight[rows, place]
            expected = [norm.sum(), (g * norm).sum(), (g * norm).mean(), made.abs().max()] if len(rows) else [0.0] * 4
            found = moescope.open(tmp_path / "a.duckdb").rows(
                "select value from (select *, list_position(['ean', 'weighted_ean', 'reap', 'max_down_proj'], name) as place "
                "from measures where expert = ?) where place > 0 order by place",
                [expert],
            )
            assert [v for (v,) in found] == pytest.approx([float(v) for v in expected], rel=1e-4, abs=1e-6)


def test_dimensionality_of_the_residual(tmp_path: Path) -> None:
    """The naive ratio of the residual stream equals that of the states themselves."""
    model, x = mixtral(layers=1), ids(6, 9)
    states: list[torch.Tensor] = []
    handle = model.model.layers[0].register_forward_hook(
        lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(x)
        handle.remove()
        with moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
            model(x[:3])
            model(x[3:])
    spectrum = torch.linalg.eigvalsh(torch.cov(states[0].flatten(0, 1).double().T))
    expected = float(spectrum.sum() ** 2 / (spectrum**2).sum())
    rows = moescope.open(tmp_path / "a.duckdb").rows(
        "select estimator, value, n, units from measures where subset = 'residual' order by estimator"
    )
    assert rows[0] == ("naive", pytest.approx(expected, rel=1e-5), 54, 6)
    assert rows[1][0] == "unbiased"


def test_a_generated_sequence_is_one_unit(tmp_path: Path) -> None:
    """Steps of one token go on with the prompt's sequences; forwards without a cache in common have their own."""
    model, x = mixtral(layers=1), ids(5, 4)
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
        model.generate(x, max_new_tokens=4, do_sample=False)
        model(ids(3, 4, 1))
    rows = moescope.open(tmp_path / "a.duckdb").rows(
        "select n, units, tokens from measures join runs using (run) where subset = 'residual' and estimator = 'naive'"
    )
    assert rows == [(47, 8, 47)]


def test_unknown(tmp_path: Path) -> None:
    """One sentence; nothing is written."""
    with pytest.raises(InputError, match="no activation measure 'reap'"):
        moescope.Tracer(mixtral(), tmp_path / "a.duckdb", activations=["reap"]).__enter__()
    assert not list(tmp_path.glob("*.parts/*"))
