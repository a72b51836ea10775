"""What each expert adds: a block's routed output, taken apart expert by expert from what was executed; and its mean."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...contracts import Call, Site
from ...errors import InputError, ModelError
from ...proof import observed
from ...routers.contribution import contribution, runs
from .base import Edit, Undo
from .executed import Zero
from .selection import check_experts


@dataclass
class Norms:
    """Sums over tokens of one router, by expert: count, Σ‖f‖ (EAN), Σ g‖f‖ (REAP, arXiv 2510.13999), Σ g f."""

    count: Tensor
    norm: Tensor
    weighted: Tensor
    total: Tensor | None = None

    @property
    def reap(self) -> Tensor:
        """(E,) mean of g‖f‖ over the tokens that chose the expert; 0 for none."""
        return self.weighted / self.count.clamp(min=1)

    @property
    def mean(self) -> Tensor:
        """(E, H) mean contribution over the tokens that chose the expert."""
        assert self.total is not None
        return self.total / self.count.clamp(min=1)[:, None]


def norms(model: nn.Module, sites: Sequence[Site], batches: Iterable[Mapping[str, Any]]) -> dict[str, Norms]:
    """{router path: sums} over `model(**batch)` of all batches; padding is counted unless its rows have no weight."""
    found: dict[str, Norms] = {}
    for inputs in batches:
        with torch.no_grad(), observed(list(sites)) as calls:
            model(**inputs)
        for site in sites:
            for call in calls[site.name]:
                _add(found, call)
    return found


def _add(found: dict[str, Norms], call: Call) -> None:
    site = call.record.site
    sums = found.setdefault(site.path, Norms(*(torch.zeros(site.n_experts) for _ in range(3))))
    for expert in range(site.n_experts):
        hit = runs(call, expert).cpu()
        if not bool(hit.any()):
            continue
        part = contribution(call, expert).cpu()[hit]
        weight = (call.record.weights * (call.record.experts == expert)).sum(-1).float().cpu()[hit]
        size = part.norm(dim=-1)
        sums.count[expert] += len(part)
        sums.weighted[expert] += float(size.sum())
        sums.norm[expert] += float((size / weight.abs().clamp(min=1e-12)).sum())
        if sums.total is None:
            sums.total = torch.zeros(site.n_experts, part.shape[-1])
        sums.total[expert] += part.sum(0)


@dataclass(frozen=True, kw_only=True)
class Mean(Edit):
    """The experts' contribution is replaced by its mean over the tokens that chose them: `means`, {router path: (E, H)}.

    `means` comes from `norms(model, sites, batches)[path].mean`. Tokens that did not run the expert are left alone.
    """

    mode: ClassVar[str] = "mean"
    experts: Sequence[int]
    means: Mapping[str, Tensor] = field(repr=False)

    def check(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """InputError without a mean, ModelError where the experts' output is no sum over a token's experts."""
        here = self.where(sites)
        check_experts(here, self.experts)
        for site in here:
            if site.path not in self.means:
                raise InputError(f"no mean is given for router {site.path}: measure it with norms(model, sites, batches)")
            if site.kind == "soft" or not site.contract.sums_per_token:
                raise ModelError(
                    f"the experts of {site.path} ({site.contract.name}) give no sum per token, so no mean fits; use zero"
                )

    def attach(self, model: nn.Module, sites: Sequence[Site]) -> list[Undo]:
        """Weights masked before the experts, means added after them."""
        undo: list[Undo] = []
        for site in self.where(sites):
            hits: list[Tensor] = []
            note, add = self._note(hits), self._add(site, hits)
            assert site.experts is not None
            undo.append(site.experts.register_forward_hook(add, prepend=True).remove)
            zero = Zero(router=site.path, experts=self.experts, tokens=self.tokens)
            undo += zero.attach(model, sites)
            undo += [h.remove for h in site.contract.edit(site, note)]
        return undo

    def _note(self, hits: list[Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def note(experts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            mine = torch.stack([((experts == e) & (weights != 0)).any(-1) for e in self.experts], -1)
            if self.tokens is not None:
                mine &= torch.as_tensor(self.tokens, dtype=torch.bool, device=mine.device).reshape(-1, 1)
            hits[:] = [mine]
            return experts, weights

        return note

    def _add(self, site: Site, hits: list[Tensor]) -> Callable[..., Any]:
        means = self.means[site.path][list(self.experts)]

        def add(_: nn.Module, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            extra = hits.pop().to(first.dtype) @ means.to(first.device, first.dtype)
            first = first + extra.view_as(first)
            return (first, *output[1:]) if isinstance(output, tuple) else first

        return add
