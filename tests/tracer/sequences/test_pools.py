"""Tokens compete for buffers within a pool: each sequence of a batch (Switch), each group of images (V-MoE)."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small import ids

import moescope
from moescope.contracts import Site
from moescope.contracts.vmoe import record
from moescope.models.tiny import build
from moescope.models.vmoe.routing import ExpertChoice, TokenChoice

CAPACITY, ROWS, PLACES = 2, 3, 7


def test_every_sequence_of_a_batch_is_a_pool(tmp_path: Path) -> None:
    """Places are counted along each sequence, its padding included; what is beyond the capacity is dropped."""
    model: Any = build("switch_transformers").model
    routers = {name: m for name, m in model.named_modules() if type(m).__name__ == "SwitchTransformersTop1Router"}
    heard: dict[str, torch.Tensor] = {}
    for name, router in routers.items():
        router.expert_capacity = CAPACITY
        router.register_forward_hook(lambda _, __, output, name=name: heard.__setitem__(name, output[2].detach()))
    x, mask = ids(ROWS, PLACES), torch.ones(ROWS, PLACES, dtype=torch.long)
    mask[1, 4:] = 0
    given = {"input_ids": x, "attention_mask": mask, "decoder_input_ids": x, "decoder_attention_mask": mask}
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb"):
        model(**given)
    with moescope.open(tmp_path / "a.duckdb") as store:
        for name, logits in heard.items():
            (router,) = store.rows("select router from routers where name = ?", [name])[0]
            expected = []
            for row in range(ROWS):
                taken: Counter[int] = Counter()
                for place in range(PLACES):
                    expert = int(logits[row, place].argmax())
                    if mask[row, place]:
                        full = taken[expert] >= CAPACITY
                        expected.append((row, place, row, 1 - full, expert, taken[expert], bool(full)))
                    taken[expert] += 1
            found = store.rows(
                "select dense_rank() over (order by t.sequence) - 1, t.position, d.pool, d.selected, a.expert, "
                "a.buffer_position, a.dropped from decisions d join assignments a using (forward, router, token) "
                "join tokens t using (token) where d.router = ? order by d.token",
                [router],
            )
            assert found == expected
            assert any(dropped for *_, dropped in found) or len(found) == 0
            pools = store.rows("select pool, tokens, capacity from pools where router = ? order by pool", [router])
            assert pools == [(row, PLACES, CAPACITY) for row in range(ROWS)]


def site(kind: str) -> Site:
    return Site("layer", torch.nn.Identity(), None, None, None, 3, kind)  # type: ignore[arg-type]


GATES = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [[0.2, 0.2, 0.6], [0.7, 0.2, 0.1]]])  # (groups, tokens, experts)


@pytest.mark.parametrize("noise", [None, torch.full((2, 2, 3), 0.5)])
def test_groups_of_token_choice(noise: torch.Tensor | None) -> None:
    indices, slots = torch.tensor([[[0, 1], [1, 2]], [[2, 0], [0, 1]]]), torch.tensor([[[0, 1], [0, 0]], [[0, 1], [0, 0]]])
    routing = TokenChoice(GATES.log(), GATES, noise, 1, indices, GATES.gather(-1, indices), slots, slots >= 1)
    found = record(site("token_choice"), routing)
    assert found.pool is not None
    assert found.dropped is not None
    assert found.buffer is not None
    assert found.logits is not None
    assert (found.pool.tolist(), found.capacity, found.pool_tokens) == ([0, 0, 1, 1], 1, 2)
    assert found.experts.tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]
    assert found.dropped.tolist() == [[False, True], [False, False], [False, True], [False, False]]
    assert found.buffer.tolist() == [[0, 1], [0, 0], [0, 1], [0, 0]]
    assert torch.allclose(found.logits, GATES.log().flatten(0, 1) + (0 if noise is None else 0.5))


def test_groups_of_expert_choice() -> None:
    """Every expert takes two places of each group: who, with what weight, at which place."""
    gates = torch.tensor([[[0.5, 0.1], [0.2, 0.7], [0.3, 0.2]], [[0.1, 0.9], [0.6, 0.0], [0.3, 0.1]]])  # (2, 3, 2)
    tokens = torch.tensor([[[0, 2], [1, 2]], [[1, 2], [0, 2]]])  # (groups, experts, places)
    weights = gates.transpose(1, 2).gather(-1, tokens)
    found = record(site("expert_choice"), ExpertChoice(gates.log(), gates, None, 2, tokens, weights))
    assert found.pool is not None
    assert found.buffer is not None
    assert (found.pool.tolist(), found.pool_tokens) == ([0, 0, 0, 1, 1, 1], 3)
    assert found.experts.tolist() == [[0, -1], [-1, 1], [0, 1], [-1, 1], [0, -1], [0, 1]]
    assert found.weights.flatten().tolist() == pytest.approx([0.5, 0, 0, 0.7, 0.3, 0.2, 0, 0.9, 0.6, 0, 0.3, 0.1])
    assert found.buffer.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [1, 1]]
