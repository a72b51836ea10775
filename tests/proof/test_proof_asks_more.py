"""What a proof asks beside recomputation: rows are the tokens of their names, edits work, and what else chooses is said."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from handwritten import ByHand
from torch import Tensor, nn

import moescope
from moescope.contracts import MethodCall, Record, Site, find
from moescope.errors import ProofFailed
from moescope.proof import prove

IDS = {"input_ids": torch.randint(0, 30, (2, 8), generator=torch.Generator().manual_seed(1))}


class Ordered(nn.Module):
    """Embeddings and one block that sees its tokens in another order; `order` (B, S) → places in the stream."""

    def __init__(self, order: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.order = nn.Embedding(32, 8), ByHand(), order

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S, H)"""
        hidden = self.embed(input_ids)
        order = self.order(*input_ids.shape)
        made = self.block(hidden.flatten(0, 1)[order][None])[0]
        return made[order.argsort()].view_as(hidden) + hidden.cumsum(1)


ORDERS = {
    "sequences first": lambda b, s: torch.arange(b * s).view(b, s).T.reshape(-1),
    "last token first": lambda b, s: torch.arange(b * s).view(b, s).flip(1).reshape(-1),
    "last sequence first": lambda b, s: torch.arange(b * s).view(b, s).flip(0).reshape(-1),
    "even places, then odd": lambda b, s: torch.arange(b * s).view(b, s // 2, 2).transpose(1, 2).reshape(-1),
}


class Plain(MethodCall):
    """Reads and writes what `route` returns."""

    name, method = "plain", "route"

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """The block."""
        if type(module) is ByHand:
            yield Site(name, module, module.gate, module.experts, self, len(module.experts))

    def read(self, args: tuple[Any, ...], output: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weights come first."""
        return output[1], output[0], args[0]

    def write(self, output: Any, experts: Tensor, weights: Tensor) -> Any:
        """The same the other way round."""
        return weights, experts

    def expert(self, block: Any, number: int, hidden: Tensor) -> Tensor:
        """Its linear map."""
        return block.experts[number](hidden)


class Placed(Plain):
    """Says which places its rows are."""

    def __init__(self, places: Tensor) -> None:
        self.places = places

    def listen(self, site: Site, emit: Any) -> list[Any]:
        """Each record with its places."""

        def placed(record: Record) -> None:
            record.rows = self.places
            emit(record)

        return super().listen(site, placed)


def _sites(model: nn.Module, contract: MethodCall) -> list[Site]:
    return [site for name, module in model.named_modules() for site in contract.find(name, module)]


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_another_order_are_refused_until_their_places_are_said(order: str) -> None:
    model = Ordered(ORDERS[order]).eval()
    with pytest.raises(ProofFailed, match=r"rows of block\.gate are not the tokens they would be stored as.*Record\.rows"):
        prove(model, _sites(model, Plain()), IDS)
    contract = Placed(ORDERS[order](2, 8))
    assert [p.identical for p in prove(model, _sites(model, contract), IDS)] == [True]


def test_one_sequence_is_enough_to_see_an_order() -> None:
    model, ids = Ordered(ORDERS["last token first"]).eval(), {"input_ids": IDS["input_ids"][:1]}
    with pytest.raises(ProofFailed, match="token 4 of sequence 0 was changed"):
        prove(model, _sites(model, Plain()), ids)


class Nothing(Plain):
    """Its edit does nothing."""

    def edit(self, site: Site, edit: Any) -> list[Any]:
        """No hook."""
        return []


class Elsewhere(Plain):
    """Its edit calls the function and drops what it gives."""

    def write(self, output: Any, experts: Tensor, weights: Tensor) -> Any:
        """What was there."""
        return output


class Heard(Plain):
    """Its edit changes what is heard and not what runs."""

    def read(self, args: tuple[Any, ...], output: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """What was written, once it was."""
        experts, weights = self.__dict__.get("wrote") or (output[1], output[0])
        return experts, weights, args[0]

    def write(self, output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Kept for those who listen."""
        self.wrote = experts, weights
        return output


@pytest.mark.parametrize("contract", [Nothing, Elsewhere, Heard])
def test_an_edit_that_does_nothing_is_refused(contract: type[Plain]) -> None:
    """Writing the same decision back shows nothing of it."""
    model = Ordered(lambda b, s: torch.arange(b * s)).eval()
    with pytest.raises(ProofFailed, match="block"):
        prove(model, _sites(model, contract()), IDS)


class Skipping(nn.Module):
    """Mixture-of-Depths around a layer, by hand: some tokens pass it by."""

    def __init__(self, layer: nn.Module, how: str) -> None:
        super().__init__()
        self.layer, self.how, self.weigh = layer, how, nn.Linear(32, 1)
        self.adapters = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.share = nn.Linear(32, 3)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer's."""
        out = self.layer(hidden, *args, **kwargs)
        score = self.weigh(hidden)[..., 0]
        if self.how == "topk":
            keep = torch.zeros_like(score).scatter(1, score.topk(2, -1).indices, 1.0)
        elif self.how == "threshold":
            keep = (score.sigmoid() > 0.5).to(score.dtype)
        else:
            mix = torch.softmax(self.share(hidden), -1)
            return out + sum(mix[..., n, None] * adapter(hidden) for n, adapter in enumerate(self.adapters))
        return hidden + keep[..., None] * (out - hidden)


class Mixing(nn.Module):
    """A layer and another part, mixed by a gate: a softmax of two, or a sigmoid of one."""

    def __init__(self, layer: nn.Module, how: str) -> None:
        super().__init__()
        self.layer, self.other, self.how = layer, nn.Linear(32, 32), how
        self.gate = nn.Linear(32, 2 if how == "softmax of two" else 1)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer's."""
        out, score = self.layer(hidden, *args, **kwargs), self.gate(hidden)
        if self.how == "scores":  # are made, and mix nothing
            self.scores = score.softmax(-1)
            return out
        share = score.softmax(-1)[..., :1] if self.how == "softmax of two" else torch.sigmoid(score)
        return share * out + (1 - share) * (self.other(hidden) if self.how != "sigmoid that skips" else hidden)


@pytest.mark.parametrize("how", ["softmax of two", "sigmoid of one", "sigmoid that skips", "scores"])
def test_what_mixes_parts_that_are_in_no_list_is_said(how: str) -> None:
    model = small.mixtral()
    model.model.layers[1] = Mixing(model.model.layers[1], how)
    said = prove(model, find(model), {"input_ids": small.ids()}).left_out
    kind = how.partition(" ")[0]
    words = f"model.layers.1 (Mixing) chooses by {kind} and is in no contract: nothing of that is stored"
    assert said == ([] if how == "scores" else [words])


@pytest.mark.parametrize(("how", "said"), [("topk", "topk"), ("threshold", "a threshold"), ("softmax", "softmax")])
def test_what_chooses_beside_the_routers_is_said(how: str, said: str, tmp_path: Path) -> None:
    """A Mixtral with such layers is traced, and the run says what it does not hold."""
    model = small.mixtral()
    model.model.layers[1] = Skipping(model.model.layers[1], how)
    with moescope.Tracer(model, tmp_path / "run.duckdb"), torch.no_grad():
        model(small.ids())
    with moescope.open(tmp_path / "run.duckdb") as store:
        ((warnings,),) = store.rows("select warnings from runs")
    assert f"model.layers.1 (Skipping) chooses by {said} and is in no contract: nothing of that is stored" in warnings


def test_what_is_claimed_or_chooses_nothing_is_not_said() -> None:
    model = small.mixtral()
    assert prove(model, find(model), {"input_ids": small.ids()}).left_out == []
