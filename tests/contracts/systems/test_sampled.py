"""VDD: all components are weighed, one acts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import System, inputs_of, own
from systems_checks import executes, halved, moved, same_rows, stored_rows, without

import moescope
from moescope.contracts import find
from moescope.errors import ProofFailed
from moescope.proof import observed, prove

GREEDY = [True, False]


def weighed(system: System) -> list[dict[int, float]]:
    """softmax of the gate's network on the observations, by hand."""
    policy: Any = system.model.get_submodule("policy")
    logits = policy.gate(system.inputs["observations"]).flatten(0, 1)
    scores = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return [dict(enumerate(row)) for row in scores.tolist()]


@pytest.mark.parametrize("greedy", GREEDY)
def test_stored_is_the_rule(greedy: bool, tmp_path: Path) -> None:
    """All four probabilities of every step."""
    system = own("vdd", greedy=greedy)
    stored = stored_rows(system, tmp_path / "run.duckdb")
    assert list(stored) == ["policy"]
    same_rows(stored["policy"], weighed(system))
    site = find(system.model)[0]
    assert (site.contract.name, site.kind, site.n_experts) == ("sampled", "sampled", 4)


@pytest.mark.parametrize("greedy", GREEDY)
def test_what_acts(greedy: bool) -> None:
    """`executed` names one component of each row, whose mean is the action; the likeliest, unless it is drawn."""
    system = own("vdd", greedy=greedy)
    torch.manual_seed(0)
    with observed(find(system.model)) as calls:
        action = system().action.flatten(0, 1)
    record = calls["policy"][0].record
    assert record.executed is not None
    assert record.executed.sum(-1).tolist() == [1] * len(action)
    acts = record.executed.int().argmax(-1)
    likeliest = [max(row, key=lambda e: row[e]) for row in weighed(system)]
    assert (acts.tolist() == likeliest) == greedy
    assert len(set(acts.tolist())) > 2
    policy: Any = system.model.get_submodule("policy")
    means = policy.means(system.inputs["observations"]).flatten(0, 1).view(len(action), 4, -1)
    torch.testing.assert_close(action, torch.stack([m[a] for m, a in zip(means, acts)]))


@pytest.mark.parametrize("edit", [moved, without(0)], ids=["moved", "without 0"])
def test_another_component_acts(edit: Any) -> None:
    """Components that change places act in them; a component that is taken out does not act."""
    executes(own("vdd"), edit)


def test_weights_choose_and_multiply_nothing() -> None:
    """Half of all weights is reported, and changes no action."""
    system = own("vdd")
    site = find(system.model)[0]
    before = system().action
    handles = site.contract.edit(site, halved(site))
    with observed([site]) as calls:
        after = system().action
    for handle in handles:
        handle.remove()
    assert torch.equal(before, after)
    torch.testing.assert_close(calls["policy"][0].record.weights.sum(-1), torch.full((36,), 0.5))


def test_drawn_is_proved_again_and_again() -> None:
    """A policy that draws is proved: the proof's forwards draw the same."""
    system = own("vdd", greedy=False)
    assert [p.identical for p in prove(system.model, find(system.model), system.inputs)] == [True]


def test_another_rule_is_refused(tmp_path: Path) -> None:
    """A policy that acts by the mean of the whole mixture is none of this kind."""
    system = own("vdd")
    policy: Any = system.model.get_submodule("policy")

    def mean(observation: torch.Tensor) -> torch.Tensor:
        chances, _ = policy.route(observation)
        return torch.einsum("...k,...ka->...a", chances, policy.means(observation).unflatten(-1, (4, -1)))

    policy.forward = mean
    with pytest.raises(ProofFailed, match="policy does not follow from what would be stored"), moescope.Tracer(
        system.model, tmp_path / "run.duckdb", inputs=system.inputs
    ):  # fmt: skip
        pass
    assert list(tmp_path.iterdir()) == []


def test_density() -> None:
    """The mixture's density by hand, for one action."""
    system = own("vdd")
    policy: Any = system.model.get_submodule("policy")
    observation, action = system.inputs["observations"][0, 0], torch.tensor([0.1, -0.2, 0.3])
    found = 0.0
    for chance, mean in zip(policy.gate(observation).softmax(-1), policy.means(observation).view(4, 3)):
        found += float(chance * torch.exp(-0.5 * (action - mean) ** 2).prod() / (2 * torch.pi) ** 1.5)
    assert float(policy.log_density(observation, action).exp()) == pytest.approx(found, rel=1e-5)
    assert inputs_of(system, "policy")["policy"][1].shape == (3, 12, 3)
