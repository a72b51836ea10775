"""nnsight wraps all kinds of families, TransformerLens some: where they give a plain model's output, the record is the same."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from tinies import one_of_a_kind

import moescope
from moescope.errors import ModelError
from moescope.models import tiny

BRIDGED = {  # class names that TransformerLens 4.3 builds from memory with the routers' decisions on its hooks
    "mixtral": "MixtralForCausalLM", "olmoe": "OlmoeForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "qwen3_next": "Qwen3NextForCausalLM", "glm4_moe": "Glm4MoeForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM", "gpt_oss": "GptOssForCausalLM", "granitemoe": "GraniteMoeForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM", "minimax_m2": "MiniMaxM2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM", "flex_olmo": "FlexOlmoForCausalLM", "jamba": "JambaForCausalLM",
}  # fmt: skip

RECORD = (
    "select r.name, token - (select min(token) from tokens where run = a.run), rank, expert, weight "
    "from assignments a join routers r using (router) where a.run = ? order by all"
)


def routes(store: Path, run: int) -> tuple[list[tuple[object, ...]], list[float]]:
    """Who was chosen, and the weights."""
    rows = moescope.open(store).rows(RECORD, [run])
    return [row[:4] for row in rows], [row[4] for row in rows]


def plain(model_type: str, store: Path, eager: bool = False) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The tiny model of a family, traced plainly as run 0; with eager attention for a bridge, which has no other."""
    try:
        made = tiny.build(model_type)
    except ModelError as error:
        pytest.skip(str(error))
    if eager:
        made.model.set_attn_implementation("eager")
    with torch.no_grad(), moescope.Tracer(made.model, store, inputs=made.inputs):
        made.model(**made.inputs)
    return made.model, made.inputs


@pytest.mark.slow
@pytest.mark.parametrize("model_type", one_of_a_kind())
@pytest.mark.sampled(4)
def test_nnsight(model_type: str, tmp_path: Path) -> None:
    """Bit for bit, on every kind of family."""
    nnsight = pytest.importorskip("nnsight")
    store = tmp_path / "a.duckdb"
    model, inputs = plain(model_type, store)
    watched = nnsight.NNsight(model)
    with torch.no_grad(), moescope.Tracer(watched, store, inputs=inputs), watched.trace(**inputs):
        watched.output.save()
    assert routes(store, 1) == routes(store, 0)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BRIDGED)
@pytest.mark.sampled(4)
def test_transformer_lens(model_type: str, tmp_path: Path) -> None:
    """The same experts, weights to 1e-6, wherever the bridge gives the plain model's logits to 1e-5."""
    builder = pytest.importorskip("transformer_lens.model_bridge.sources._bridge_builder")
    warnings.filterwarnings("ignore")
    store = tmp_path / "a.duckdb"
    model, inputs = plain(model_type, store, eager=True)
    with torch.no_grad():
        reference = model(**inputs).logits
        inner = copy.deepcopy(model)
        try:
            bridge = builder.build_bridge_from_module(inner, BRIDGED[model_type], hf_config=inner.config).eval()
            logits = bridge(inputs["input_ids"], attention_mask=inputs.get("attention_mask"))
        except Exception as error:
            pytest.skip(f"TransformerLens cannot build or run it: {type(error).__name__}: {str(error)[:80]}")
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        if float((logits - reference)[mask].abs().max()) > 1e-5:
            pytest.skip("this bridge does not give the plain model's logits")
        with moescope.Tracer(bridge, store, inputs=inputs):
            bridge(inputs["input_ids"], attention_mask=inputs.get("attention_mask"))
    (one, weights), (other, others) = routes(store, 0), routes(store, 1)
    assert other == one
    assert max(abs(a - b) for a, b in zip(weights, others)) <= 1e-6
