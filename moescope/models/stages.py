"""A pipeline of diffusers that changes its denoiser on the way (Wan 2.2), as a model whose experts are whole denoisers.

Such a pipeline is no module and its choice is a line of its loop: `transformer` from a boundary on, `transformer_2` below it.
While `staged(pipe)` runs, each call of one of them goes through one model instead, which is what is traced: a forward for
each step (and for each half of guidance), in which `route` says which denoiser it is, for every sample of the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..hooks import Own

PARTS = ("transformer", "transformer_2")


class Staged(nn.Module):
    """Called as a denoiser is, with `number` to say which; gives what that one gives."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.stages = Stages(parts)
        self.config = getattr(next(iter(parts.values())), "config", None)
        self.called: dict[str, Any] = {}  # arguments of the last call

    def forward(self, hidden_states: Tensor, timestep: Tensor, number: int = 0, **given: Any) -> Any:
        """Samples (B, ...), timesteps (B,), and whatever else a denoiser takes."""
        self.called = {"hidden_states": hidden_states, "timestep": timestep, "number": number, **given}
        return self.stages(hidden_states, number, timestep=timestep, **given)


class Stages(nn.Module):
    """The denoiser of a step."""

    kind, unit, decides_by, whole = "static", "sequence", "route", True

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Whole(part) for part in parts.values())
        self.expert_names = dict(enumerate(parts))

    def route(self, samples: int, number: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Experts (B, 1), all `number`, and weights of 1 (B, 1)."""
        return torch.full((samples, 1), number, device=like.device), like.new_ones(samples, 1)

    def alongside(self, hidden: Tensor, number: int, **given: Any) -> tuple[Tensor, ...]:
        """What a denoiser takes of each sample beside it; the rest is the same for all and stays with the denoisers."""
        mine = {name: value for name, value in given.items() if torch.is_tensor(value) and value.shape[:1] == hidden.shape[:1]}
        for expert in self.experts:
            expert.names, expert.rest = list(mine), {name: value for name, value in given.items() if name not in mine}
        return tuple(mine.values())

    def forward(self, hidden: Tensor, number: int, **given: Any) -> Any:
        """Samples (B, ...) → a tuple of one tensor (B, ...), as a denoiser gives it with `return_dict=False`."""
        beside = self.alongside(hidden, number, **given)
        experts, weights = self.route(len(hidden), number, hidden)
        made: Tensor | None = None
        for expert, module in enumerate(self.experts):
            sample, slot = (experts == expert).nonzero(as_tuple=True)
            if len(sample):
                out = module(hidden[sample], *(t[sample] for t in beside))
                made = out.new_zeros(len(hidden), *out.shape[1:]) if made is None else made
                made[sample] += out * weights[sample, slot].view(-1, *[1] * (out.dim() - 1))
        return (torch.zeros_like(hidden) if made is None else made,)


class Whole(nn.Module):
    """One denoiser, called by place."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self._run = part, part.forward
        self.names: list[str] = []
        self.rest: dict[str, Any] = {}

    def forward(self, hidden: Tensor, *beside: Tensor) -> Tensor:
        """(n, ...) → (n, ...), by the denoiser's own forward."""
        made = self._run(hidden_states=hidden, **dict(zip(self.names, beside)), **{**self.rest, "return_dict": False})
        return made[0]


class _Redirected(Own):
    """In place of a denoiser's forward."""

    def __init__(self, model: Staged, part: nn.Module, number: int) -> None:
        self._model, self._part, self._number, self._own = model, part, number, vars(part).get("forward")
        part.forward = self  # type: ignore[assignment]

    def __call__(self, hidden_states: Tensor, timestep: Tensor, *, return_dict: bool = True, **given: Any) -> Any:
        made = self._model(hidden_states, timestep, number=self._number, **given)
        return made if not return_dict else _Sample(made[0])

    def undo(self) -> None:
        """The denoiser is as it was."""
        del self._part.forward
        if self._own is not None:
            self._part.forward = self._own


class _Sample(tuple[Tensor]):
    """What a denoiser gives: the first of a tuple, or `sample`."""

    def __new__(cls, sample: Tensor) -> "_Sample":
        return super().__new__(cls, (sample,))

    @property
    def sample(self) -> Tensor:
        """(B, ...)"""
        return self[0]


@contextmanager
def staged(pipe: Any, parts: Sequence[str] = PARTS) -> Iterator[Staged]:
    """One model for the denoisers of `pipe` with these names; they are the pipeline's own again afterwards.

    >>> with staged(pipe) as model, moescope.Tracer(model, "run.duckdb", inputs=first_call(model, lambda: pipe(...))):
    ...     pipe(...)

    InputError if the pipeline has not all of them: then there is one denoiser, which is traced as it is.
    """
    found = {name: part for name in parts if isinstance(part := getattr(pipe, name, None), nn.Module)}
    if len(found) < 2:
        raise InputError(
            f"{type(pipe).__name__} has {', '.join(found) or 'none'} of {', '.join(parts)}, so nothing chooses between whole "
            f"denoisers; trace its denoiser itself, e.g. Tracer(pipe.{next(iter(found), 'transformer')}, ...)"
        )
    model = Staged(found)
    redirected = [_Redirected(model, part, number) for number, part in enumerate(found.values())]
    try:
        yield model
    finally:
        for one in redirected:
            one.undo()


def first_call(model: Staged, run: Callable[[], Any]) -> dict[str, Any]:
    """The inputs of one forward, for the proof: those of the last that `run()` makes. InputError if it makes none."""
    with torch.no_grad():
        run()
    if not model.called:
        raise InputError("the pipeline called none of its denoisers, so there are no inputs to prove its routing with")
    return dict(model.called)
