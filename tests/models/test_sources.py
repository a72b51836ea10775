"""TransformerLens bridges and nnsight models are traced like the plain model inside them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from small import ids, mixtral

import moescope
from moescope.errors import InputError

WHOLE = (
    "select r.layer, t.position, t.sequence - (select min(sequence) from sequences where run = a.run), a.rank, a.expert, "
    "a.weight, l.logits from assignments a join routers r using (router) join tokens t using (token) "
    "join logits l on (l.router = a.router and l.token = a.token) where a.run = ? order by all"
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> moescope.Store:
    """One text through the plain model (run 0), an nnsight model (run 1) and a bridge (run 2)."""
    nnsight = pytest.importorskip("nnsight")
    builder = pytest.importorskip("transformer_lens.model_bridge.sources._bridge_builder")
    path = tmp_path_factory.mktemp("sources") / "run.duckdb"
    plain, x = mixtral(attn_implementation="eager"), ids()
    watched, bridged = nnsight.NNsight(copy.deepcopy(plain)), copy.deepcopy(plain)
    bridge = builder.build_bridge_from_module(bridged, "MixtralForCausalLM", hf_config=bridged.config).eval()
    with torch.no_grad():
        with moescope.Tracer(plain, path, logits=True):
            plain(x)
        with moescope.Tracer(watched, path, logits=True), watched.trace(x):
            watched.lm_head.output.save()
        with moescope.Tracer(bridge, path, logits=True):
            bridge(x)
    return moescope.open(path)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "tolerance"), [(1, 0.0), (2, 1e-6)])
def test_same_record(record: moescope.Store, run: int, tolerance: float) -> None:
    """The same experts; weights and logits bit for bit (nnsight) or to 1e-6 (the bridge has its own attention)."""
    plain, other = record.rows(WHOLE, [0]), record.rows(WHOLE, [run])
    assert [row[:5] for row in plain] == [row[:5] for row in other]
    assert max(abs(a[5] - b[5]) for a, b in zip(plain, other)) <= tolerance
    assert max(float(np.abs(np.subtract(a[6], b[6])).max()) for a, b in zip(plain, other)) <= tolerance


@pytest.mark.slow
def test_from_a_decision_back_to_the_activation(tmp_path: Path) -> None:
    """A token found by SQL gives the same hidden state through the plain model, nnsight and TransformerLens."""
    nnsight = pytest.importorskip("nnsight")
    builder = pytest.importorskip("transformer_lens.model_bridge.sources._bridge_builder")
    plain, x = mixtral(attn_implementation="eager"), ids()
    with torch.no_grad(), moescope.Tracer(plain, tmp_path / "a.duckdb"):
        plain(x)
    store = moescope.open(tmp_path / "a.duckdb")
    (token,) = store.rows("select token from token_text where sequence = 1 and position = 4")[0]
    place = moescope.locate(store, token, layer=1)
    seen: list[torch.Tensor] = []
    plain.model.layers[1].mlp.gate.register_forward_pre_hook(lambda _, a: seen.append(a[0])).__enter__()
    with torch.no_grad():
        plain(x)
    expected = seen[0][7 + 4]
    bridge = builder.build_bridge_from_module(copy.deepcopy(plain), "MixtralForCausalLM", hf_config=plain.config).eval()
    states = [
        place.state(plain),
        place.nnsight(nnsight.NNsight(copy.deepcopy(plain))),
        place.transformer_lens(bridge),
        place.state(bridge),
    ]
    for state in states:
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="no decision in layer 7; it has some in 0, 1"):
        moescope.locate(store, token, layer=7)
    with pytest.raises(InputError, match="no such token"):
        moescope.locate(store, 10**6, layer=0)


@pytest.mark.slow
def test_same_names(record: moescope.Store) -> None:
    """Routers are called what the model calls them, whatever wraps them."""
    names = record.rows("select run, list(name order by name) from routers group by run order by run")
    assert [n for _, n in names] == [["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]] * 3


def test_no_model(tmp_path: Path) -> None:
    """Something else is refused in one sentence."""
    with pytest.raises(InputError, match="a str is no model"):
        moescope.Tracer("mixtral", tmp_path / "a.duckdb")
