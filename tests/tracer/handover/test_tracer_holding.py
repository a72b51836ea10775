"""Small forwards that are handed over together are recorded as if they came one by one, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tracing
from torch import Tensor, nn

import moescope
from moescope.errors import ModelError
from moescope.tracer import Tracer
from moescope.tracer.handover.forward_buffer import ForwardBuffer


def talk(model: Any, store: Path, **settings: Any) -> dict[str, list[str]]:
    """Two conversations at once, interleaved step by step: 3 sequences of 20 tokens, 2 of 20; what the store says."""
    random = torch.Generator().manual_seed(0)
    chats = [torch.randint(1, tracing.VOCABULARY, (size, 20), generator=random) for size in (3, 2)]
    with Tracer(model, store, **settings):
        caches = [model(input_ids=ids[:, :4], use_cache=True).past_key_values for ids in chats]
        for place in range(4, 20):
            for ids, cache in zip(chats, caches):
                model(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
    with moescope.open(store) as opened:
        assert opened.rows("select count(*), sum(tokens) from forwards") == [(34, 100)]
    return tracing.told(store)


@pytest.mark.parametrize("hold", [2, 7, 64])
@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
@pytest.mark.sampled(1)
def test_held_or_not_the_record_is_the_same(grad: Any, hold: int, tmp_path: Path) -> None:
    with grad():
        one_by_one = talk(tracing.tiny(), tmp_path / "one.duckdb", hold=1)
        together = talk(tracing.tiny(), tmp_path / "together.duckdb", hold=hold)
    settings = ("runs",)  # names the options
    assert {n: rows for n, rows in one_by_one.items() if n not in settings} == {
        n: rows for n, rows in together.items() if n not in settings
    }


def test_few_jobs_for_many_small_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    take = ForwardBuffer.take

    def counted(self: ForwardBuffer, *said: Any) -> Any:
        job = take(self, *said)
        sizes.append(0 if job is None else len(job.forwards))
        return job

    monkeypatch.setattr(ForwardBuffer, "take", counted)
    with torch.no_grad():
        talk(tracing.tiny(), tmp_path / "run.duckdb", hold=16)
    assert sizes == [16, 16, 2]


class Reusing(nn.Module):
    """A router that writes every decision into the same three tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, generator=torch.Generator().manual_seed(0)))
        self.said = [torch.empty(6, 4), torch.empty(6, 2), torch.empty(6, 2, dtype=torch.long)]

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """(logits, weights, indices)."""
        logits = hidden @ self.weight.T
        weights, indices = logits.softmax(-1).topk(2)
        for own, new in zip(self.said, (logits, weights, indices)):
            own.copy_(new)
        return tuple(self.said)


class Experts(nn.Module):
    """Each scales its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(1.0, 5.0).reshape(4, 1, 1))

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """(T, 1)."""
        return hidden * (self.scale[top_k_index, 0, 0] * top_k_weights).sum(-1, keepdim=True)


class Block(nn.Module):
    """Router and experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = Reusing(), Experts()

    def forward(self, hidden: Tensor) -> Tensor:
        """Route."""
        _, weights, indices = self.gate(hidden)
        return self.experts(hidden, indices, weights)


class Model(nn.Module):
    """One routed block over ids."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block()])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(tokens, 1)."""
        return self.layers[0](input_ids.reshape(-1, 1).float() / 10 - 3)


def test_tensors_that_are_written_again_are_refused(tmp_path: Path) -> None:
    ids = torch.arange(24).reshape(4, 1, 6)
    inputs = {"input_ids": ids[0]}

    def run(name: str, grad: Any, **settings: Any) -> Model:
        with grad():
            model = Model()
            with Tracer(model, tmp_path / f"{name}.duckdb", inputs=inputs, **settings):
                for batch in ids:
                    model(input_ids=batch)
        return model

    with pytest.raises(ModelError, match="hold=1"):
        run("a", torch.no_grad)
    for name, model in (("b", run("b", torch.no_grad, hold=1)), ("c", run("c", torch.inference_mode))):
        hidden = ids.reshape(-1, 1).float() / 10 - 3
        expected = (hidden @ model.layers[0].gate.weight.T).softmax(-1).topk(2)
        with moescope.open(tmp_path / f"{name}.duckdb") as opened:
            found = opened.sql("select expert, weight from assignments order by token, rank").fetchnumpy()
        np.testing.assert_array_equal(found["expert"].reshape(-1, 2), expected.indices)
        np.testing.assert_allclose(found["weight"].reshape(-1, 2), expected.values.detach(), rtol=1e-6)
