"""Systems of the zoo traced once, and what their stores say, by the token's place in the inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import moescope
from moescope.contracts import Site, find
from moescope.proof import edited

Rows = dict[int, dict[int, float]]  # by place b * S + s: the experts that a token has, and their weights


class Layered(nn.Module):
    """Embeddings and two layers of a package, with the residual."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layers = nn.Embedding(512, 16), nn.ModuleList(make() for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, S) → (B, S, H); padding is routed too."""
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)[0]
        return hidden


def traced(model: nn.Module, inputs: dict[str, Any], path: Path) -> Any:
    """A store of one forward; the proof has been passed."""
    with moescope.Tracer(model, path, inputs=inputs), torch.no_grad():
        torch.manual_seed(0)
        model(**inputs)
    return moescope.open(path)


def places(store: Any, mask: Tensor | None = None) -> dict[int, int]:
    """The place b * S + s of every token of the one forward; padding has none."""
    tokens = [t for (t,) in store.rows("select token from tokens order by token")]
    real = range(len(tokens)) if mask is None else mask.flatten().nonzero()[:, 0].tolist()
    return dict(zip(tokens, real))


def stored(store: Any, router: str, mask: Tensor | None = None) -> Rows:
    """What the store says of a router: every token that it considered, also those without an expert."""
    at = places(store, mask)
    where = f"join routers using (router) where name = '{router}'"
    found: Rows = {at[t]: {} for (t,) in store.rows(f"select token from decisions {where}")}
    for token, expert, weight in store.rows(f"select token, expert, weight from routing {where} and expert is not null"):
        found[at[token]][expert] = weight
    return found


def leaves(store: Any, root: str, mask: Tensor | None = None) -> dict[int, dict[tuple[int, ...], float]]:
    """The weight of every leaf of a tree for every token, by the experts on the way, from the view."""
    at, found = places(store, mask), dict[int, dict[tuple[int, ...], float]]()
    query = f"select token, path, l.weight from leaf_weight l join routers r on r.router = l.root where r.name = '{root}'"
    for token, path, weight in store.rows(query):
        found.setdefault(at[token], {})[tuple(path)] = weight
    return found


@contextmanager
def caught(*modules: nn.Module) -> Iterator[list[list[tuple[tuple[Any, ...], Any]]]]:
    """What each module was called with and gave, call by call, through a plain hook of PyTorch."""
    calls: list[list[tuple[tuple[Any, ...], Any]]] = [[] for _ in modules]

    def keep(seen: list[Any]) -> Callable[..., None]:
        return lambda _, args, kwargs, output: seen.append(((*args, *kwargs.values()), output))

    handles = [m.register_forward_hook(keep(seen), with_kwargs=True) for m, seen in zip(modules, calls)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def same(rows: Rows, expected: Rows) -> None:
    """The same tokens with the same experts, and weights that differ by rounding alone."""
    assert {t: sorted(e) for t, e in rows.items()} == {t: sorted(e) for t, e in expected.items()}
    for token, experts in expected.items():
        for expert, weight in experts.items():
            assert abs(rows[token][expert] - weight) <= 1e-5 + 1e-4 * abs(weight)


def site_at(model: nn.Module, router: str) -> Site:
    """The site of a router by its path."""
    return next(site for site in find(model) if site.path == router)


def output_without(model: nn.Module, inputs: dict[str, Any], router: str, expert: int) -> Tensor:
    """What the router's block gives when one expert's weights are written as 0, through the contract."""
    site = site_at(model, router)
    with edited([site], lambda *_: lambda e, w: (e, w.masked_fill(e == expert, 0))), caught(site.block) as calls:
        torch.manual_seed(0)
        with torch.no_grad():
            model(**inputs)
    output = calls[0][0][1]
    return output[0] if isinstance(output, tuple) else output
