"""Capacity and buffer places against tables worked by hand."""

import pytest
import torch

from moescope.errors import InputError
from moescope.models.vmoe.buffers import best_first, buffer_places, expert_capacity

# choices in a group, experts, factor, rounding, multiple of, places; the first two rows are the authors' own sums
CAPACITIES = [
    (136, 8, 0.5, "ceil", 4, 12),  # 8.5 -> 9 -> 12
    (136, 8, 0.5, "round", 4, 8),  # 8.5 -> 8, the even half
    (136, 8, 0.5, "ceil", None, 9),
    (136, 8, 0.5, "round", None, 8),
    (140, 8, 0.6, "round", None, 10),  # 10.5 -> 10
    (148, 8, 0.5, "round", 1, 9),  # 9.25
    (68, 8, 0.25, "ceil", None, 3),  # 2.125
    (136, 8, 1.05, "ceil", 4, 20),  # 17.85
    (136, 8, 4.0, "ceil", 4, 68),
    (800, 8, 1.05, "ceil", 4, 108),  # 105
    (800, 8, 1.0, "ceil", 4, 100),
    (8, 8, 0.01, "ceil", 0, 1),
    (10, 2, 1.0, "ceil", 3, 6),
]


@pytest.mark.parametrize(("choices", "experts", "factor", "rounding", "multiple", "places"), CAPACITIES)
def test_capacity(choices: int, experts: int, factor: float, rounding: str, multiple: int | None, places: int) -> None:
    assert expert_capacity(choices, experts, factor, rounding, multiple) == places


def test_capacity_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="at least one is needed"):
        expert_capacity(8, 8, 0.4, "round", 4)


# One group of four tokens, two choices each, three experts.
#   token   choices   best gate
#   0       0, 1      0.5
#   1       0, 2      0.9
#   2       1, 0      0.6
#   3       0, 1      0.9   (as sure as token 1, but later)
CHOICES = torch.tensor([[[0, 1], [0, 2], [1, 0], [0, 1]]])
SURENESS = torch.tensor([[0.5, 0.9, 0.6, 0.9]])
# Vanilla: first choices in order fill 0: t0 t1 t3, 1: t2; then second choices: 1: t0 -> 1, 2: t1 -> 0, 0: t2 -> 3, 1: t3 -> 2.
VANILLA = [[[0, 1], [1, 0], [0, 3], [2, 2]]]
# Batch priority, order t1 t3 t2 t0: 0: t1 t3 t0, 1: t2; then 2: t1 -> 0, 1: t3 -> 1, 0: t2 -> 3, 1: t0 -> 2.
PRIORITY = [[[2, 2], [0, 0], [0, 3], [1, 1]]]


def test_places_in_token_order() -> None:
    assert buffer_places(CHOICES, None, 3).tolist() == VANILLA


def test_places_by_priority() -> None:
    assert buffer_places(CHOICES, SURENESS, 3).tolist() == PRIORITY


def test_groups_do_not_share_buffers() -> None:
    twice = buffer_places(CHOICES.repeat(2, 1, 1), SURENESS.repeat(2, 1), 3)
    assert twice.tolist() == PRIORITY * 2


def test_all_first_choices_come_before_any_second() -> None:
    choices = torch.tensor([[[0, 1], [1, 0]]])
    assert buffer_places(choices, torch.tensor([[0.1, 0.9]]), 2).tolist() == [[[0, 1], [0, 1]]]


def test_ties_go_to_the_lower_position() -> None:
    values, where = best_first(torch.tensor([[0.2, 0.4, 0.4, 0.0, 0.4]]), 4)
    assert where.tolist() == [[1, 2, 4, 0]]
    assert values.tolist() == [pytest.approx([0.4, 0.4, 0.4, 0.2])]
