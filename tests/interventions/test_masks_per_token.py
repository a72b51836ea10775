"""Experts taken out of the choice token by token: flat routers, routers of groups, product keys."""

from typing import Any

import pytest
import torch

from moescope.contracts import find
from moescope.errors import InputError
from moescope.interventions import RouteAround, intervene
from moescope.interventions.edits.masking import Count, Masked, ProductKeys, mask_of
from moescope.models import tiny
from moescope.proof import observed

GONE = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=torch.bool)  # token 0: expert 0, token 1: experts 4 and 5
SCORES = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1.0, 2, 3, 4, 5, 6]])
MINUS = float("-inf")


def test_each_token_has_a_mask_of_its_own() -> None:
    expected = [[MINUS, 5, 4, 3, 2, 1], [1, 2, 3, 4, MINUS, MINUS]]
    assert Masked(GONE).masked(SCORES).tolist() == expected
    assert Masked(GONE).masked(SCORES.view(2, 1, 6)).flatten(0, 1).tolist() == expected
    assert Masked(GONE).masked(SCORES.view(1, 2, 6))[0].tolist() == expected


def test_groups_of_each_token() -> None:
    """(T, groups, experts of a group): the same experts of the same tokens."""
    expected = [[[MINUS, 5], [4, 3], [2, 1]], [[1, 2], [3, 4], [MINUS, MINUS]]]
    assert Masked(GONE).masked(SCORES.view(2, 3, 2)).tolist() == expected
    one = Masked(GONE[1]).masked(SCORES.view(2, 3, 2)).tolist()
    assert one == [[[6, 5], [4, 3], [MINUS, MINUS]], [[1, 2], [3, 4], [MINUS, MINUS]]]


def test_what_has_no_axis_of_experts_stays() -> None:
    for other in (torch.arange(12).view(2, 6), torch.ones(2, 5), torch.ones(2, 3, 3), torch.ones(6, 1)):
        mode = Masked(GONE)
        assert mode.masked(other) is other
        assert mode.hits == 0


def test_a_mask_of_other_tokens_is_refused() -> None:
    for scores in (torch.ones(3, 6), torch.ones(1, 6), torch.ones(3, 3, 2)):
        with pytest.raises(InputError, match=f"names 2 token places, but the router sees {scores.numel() // 6}"):
            Masked(GONE).masked(scores)


PICKS: list[tuple[Any, list[list[int]]]] = [
    (lambda x: x.topk(2).indices, [[1, 2], [3, 2]]),
    (lambda x: torch.topk(x, 2, -1).indices, [[1, 2], [3, 2]]),
    (lambda x: torch.topk(x, k=2, dim=-1, sorted=True).indices, [[1, 2], [3, 2]]),
    (lambda x: x.argmax(-1)[:, None], [[1], [3]]),
    (lambda x: torch.argmax(x, dim=1)[:, None], [[1], [3]]),
    (lambda x: x.max(-1).indices[:, None], [[1], [3]]),
    (lambda x: torch.max(x, 1)[1][:, None], [[1], [3]]),
    (lambda x: x.sort(descending=True).indices[:, :2], [[1, 2], [3, 2]]),
    (lambda x: torch.sort(x, -1, True).indices[:, :2], [[1, 2], [3, 2]]),
    (lambda x: x.t().topk(1, 0).indices.t(), [[0], [5]]),  # over tokens' axis: not the experts'
    (lambda x: x.max()[None, None].long(), [[6]]),  # of everything
    (lambda x: x.argmax()[None, None], [[0]]),
]


@pytest.mark.parametrize(("pick", "expected"), PICKS)
def test_choices_that_see_the_mask(pick: Any, expected: list[list[int]]) -> None:
    with Masked(GONE):
        assert pick(SCORES).tolist() == expected


def test_product_keys_of_each_token() -> None:
    """Two keys a side, expert = 2 · first + second; the second topk chooses among candidates, token by token."""
    keys = torch.tensor([[[9.0, 1.0], [2.0, 8.0]], [[3.0, 4.0], [2.0, 7.0]]])  # (side, token, keys)
    gone = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    found = {}
    for name, mask in (("none", torch.zeros(2, 4, dtype=torch.bool)), ("own", gone), ("one", gone[0])):
        with ProductKeys(mask) as mode:
            (first, second), (a, b) = keys.topk(2, dim=-1)
            sums = (first.unsqueeze(-1) + second.unsqueeze(-2)).flatten(-2)
            numbers = (a.unsqueeze(-1) * 2 + b.unsqueeze(-2)).flatten(-2)
            found[name] = numbers.gather(-1, sums.topk(2).indices).tolist()
            assert mode.hits == 1
            plain = torch.tensor([[4.0, 3, 2, 1], [1.0, 2, 3, 4]]).topk(2).indices.tolist()  # no list of half keys before it
        found[f"{name}, plain"] = plain
    assert found == {
        "none": [[1, 0], [3, 2]], "own": [[0, 3], [1, 0]], "one": [[0, 3], [3, 2]],
        "none, plain": [[0, 1], [3, 2]], "own, plain": [[0, 2], [1, 0]], "one, plain": [[0, 2], [3, 2]],
    }  # fmt: skip


def test_another_number_of_experts() -> None:
    with Count(6, 2, 3) as mode:
        assert SCORES.topk(2).indices.shape == (2, 3)
        assert torch.topk(SCORES, k=2, dim=-1).indices.shape == (2, 3)
        assert SCORES.topk(4).indices.shape == (2, 4)  # another choice than that of experts per token
        assert SCORES[:, :5].topk(2).indices.shape == (2, 2)
        assert mode.hits == 3
    with Count(6, 0, 3):
        assert SCORES.topk(4).indices.shape == (2, 3)


def test_mask_of_some_tokens() -> None:
    class Site:
        n_experts, special_experts, kind = 4, 0, "token_choice"

    assert mask_of(Site(), [1, 3], None).tolist() == [False, True, False, True]  # type: ignore[arg-type]
    some = mask_of(Site(), [1, 3], torch.tensor([[True, False, True]]))  # type: ignore[arg-type]
    assert some.tolist() == [[False, True, False, True], [False] * 4, [False, True, False, True]]


@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe", "mixtral", "jetmoe"])
def test_every_token_as_if_it_were_alone(name: str) -> None:
    """The first layer's choice under a mask of its own for each token is that under each token's mask for all."""
    built = tiny.build(name)
    sites = find(built.model)[:1]

    def chosen(edit: RouteAround) -> torch.Tensor:
        with torch.no_grad(), intervene(built.model, edit, sites=sites), observed(sites) as calls:
            built.model(**built.inputs)
        return calls[sites[0].name][0].record.experts

    with torch.no_grad(), observed(sites) as calls:
        built.model(**built.inputs)
    was = calls[sites[0].name][0].record.experts
    masks = torch.zeros(len(was), sites[0].n_experts, dtype=torch.bool)
    masks.scatter_(1, was[:, :1].long(), True)  # each without its own first choice
    alone = chosen(RouteAround(router=sites[0].path, mask=masks))
    assert not bool((alone == was[:, :1]).any())
    for expert in was[:, 0].unique().tolist():
        rows = was[:, 0] == expert
        assert alone[rows].tolist() == chosen(RouteAround(router=sites[0].path, experts=[expert]))[rows].tolist()
