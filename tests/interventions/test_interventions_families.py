"""Edits on every family that is installed, made tiny."""

import warnings
from typing import Any

import pytest
import torch

from moescope.contracts import Site, find
from moescope.errors import ModelError
from moescope.interventions import Force, Identity, RandomRouter, RouteAround, TopK, Zero, contribution, intervene
from moescope.interventions.ablation.prefix import Prefix
from moescope.models import tiny
from moescope.proof import observed, tensors
from moescope.routers.contribution import always

NO_NEXT = {  # families that cannot be routed around in some layer, and the word that says why
    "deepseek_v4": "table",
    "nllb-moe": "does not execute",
    "vitpose_backbone": "told its expert",
}
FIXED_K = {  # families whose number of experts cannot be changed
    "deepseek_v4", "doge", "jetmoe", "longcat_flash", "nllb-moe", "phimoe", "switch_transformers", "vitpose_backbone",
}  # fmt: skip


@pytest.fixture(scope="module", params=tiny.names())
def family(request: pytest.FixtureRequest) -> tuple[str, Any, dict[str, Any], list[Site], dict[str, Any]]:
    warnings.simplefilter("ignore")
    built = tiny.build(request.param)
    sites = find(built.model)
    with torch.no_grad(), observed(sites) as calls:
        built.model(**built.inputs)
    return request.param, built.model, built.inputs, [s for s in sites if calls[s.name]], calls


def run(family: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors(family[1](**family[2]))


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(left, right, strict=True))


def busiest(call: Any) -> int:
    alive = executed(call)
    return int(alive[(alive >= 0) & (alive < call.record.site.n_experts)].mode().values)


def executed(call: Any) -> torch.Tensor:
    record = call.record
    return record.experts if record.dropped is None else record.experts.masked_fill(record.dropped, -1)


def test_identity_is_bit_identical_and_leaves_nothing_behind(family: Any) -> None:
    reference = run(family)
    with intervene(family[1], Identity(), sites=family[3]):
        assert same(run(family), reference)
    with (
        pytest.raises(KeyError),
        intervene(family[1], Identity(), RandomRouter() if _free(family) else Identity(), sites=family[3]),
    ):
        raise KeyError
    assert same(run(family), reference)


def _free(family: Any) -> bool:
    return all(s.kind not in ("expert_choice", "soft") and s.n_experts > 1 for s in family[3])


def test_routing_around_never_lets_the_masked_expert_in(family: Any) -> None:
    name, model, _, sites, calls = family
    reference = run(family)
    edits = [RouteAround(router=s.path, experts=[busiest(calls[s.name][0])]) for s in sites]
    if name in NO_NEXT:
        with pytest.raises(ModelError, match=NO_NEXT[name]), intervene(model, *edits, sites=sites):
            pass
        edits = [e for e, s in zip(edits, sites) if s.kind == "token_choice" and not s.warning]
    with intervene(model, *edits, sites=sites), observed(sites) as after:
        run(family)
    masked = {e.router: e.experts[0] for e in edits}
    for site in sites:
        for call in after[site.name]:
            hit = (executed(call) == masked.get(site.path, -9)) & (call.record.weights != 0)
            assert not bool(hit.any()), site.path
    assert same(run(family), reference)


def test_the_number_of_experts_changes_or_the_family_says_why_not(family: Any) -> None:
    name, model, _, sites, calls = family
    edits = [TopK(router=s.path, k=1 if calls[s.name][0].record.experts.shape[-1] > 1 else 2) for s in sites]
    if name in FIXED_K:
        with pytest.raises(ModelError, match="router"), intervene(model, *edits, sites=sites):
            pass
        return
    with intervene(model, *edits, sites=sites), observed(sites) as after:
        run(family)
    assert {after[s.name][0].record.experts.shape[-1] for s in sites} == {e.k for e in edits}


def test_forced_experts_run_everywhere(family: Any) -> None:
    _, model, _, sites, calls = family
    if family[0] == "nllb-moe":
        pytest.skip("what is written into its mask is read back differently")
    edits = [Force(router=s.path, experts=[busiest(calls[s.name][0])]) for s in sites]
    with intervene(model, *edits, sites=sites), observed(sites) as after:
        run(family)
    for edit, site in zip(edits, sites):
        for call in after[site.name]:
            there = executed(call)
            assert bool(((there == edit.experts[0]) | (there < 0)).any(-1).all())


def test_contributions_sum_to_the_output(family: Any) -> None:
    for site in family[3]:
        call = family[4][site.name][0]
        limit = site.n_experts + site.special_experts
        total = sum(contribution(call, e) for e in range(limit))
        output = call.output.float().reshape(total.shape)  # type: ignore[union-attr]
        total = total + always(call)
        assert float((output - total).abs().max()) <= 1e-4 * float(output.abs().max())


def test_zero_is_the_expert_with_its_output_weights_at_zero(family: Any) -> None:
    _, model, _, sites, calls = family
    experts = {s.path: busiest(calls[s.name][0]) for s in sites}
    stacks = [_output_weights(s, experts[s.path]) for s in sites]
    if not all(stacks):
        pytest.skip("experts without output weights of their own")
    with intervene(model, *(Zero(router=p, experts=[e]) for p, e in experts.items()), sites=sites):
        masked = run(family)
    kept = [(t, t.clone()) for stack in stacks for t in stack]
    with torch.no_grad():
        for tensor, _ in kept:
            tensor.zero_()
        cut = run(family)
        for tensor, old in kept:
            tensor.copy_(old)
    assert same(masked, cut)


def _output_weights(site: Site, expert: int) -> list[torch.Tensor]:
    experts: Any = site.experts
    if torch.is_tensor(getattr(experts, "down_proj", None)):
        found = [experts.down_proj[expert]]
        bias = getattr(experts, "down_proj_bias", None)
        return [p.data for p in [*found, *([bias[expert]] if bias is not None else [])]]
    module = getattr(experts, f"expert_{expert}", None)
    for name in ("wo", "fc2"):
        if module is not None and hasattr(module, name):
            return [p.data for p in getattr(module, name).parameters()]
    return []


def test_shared_work_is_bit_identical(family: Any) -> None:
    _, model, inputs, sites, _ = family
    prefix = Prefix(model, sites)
    prefix.run(inputs)
    for site in sites:
        assert prefix.fits(inputs, [site])
        edit = Zero(router=site.path, experts=[0])
        with torch.no_grad(), intervene(model, edit, sites=sites):
            plain = model(**inputs)
            with prefix.resume([site]):
                shared = model(**inputs)
        assert torch.equal(_first(plain).nan_to_num(), _first(shared).nan_to_num())


def _first(output: Any) -> torch.Tensor:
    return output.logits if hasattr(output, "logits") else tensors(output)[0]
