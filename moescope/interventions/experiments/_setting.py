"""What an experiment is given: the model, the run whose inputs it goes through again, and its routers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...contracts import Call, Site, find
from ...errors import InputError, ModelError
from ...models.loading import Loaded
from ...proof import observed
from ...routers.calls import signature
from ...store import Store
from ...words import numbers
from ..ablation.rows import baseline
from ..data import Batch, Batches
from ..edits.selection import chosen


@dataclass
class Found:
    """Figures (columns of answers; none where nothing is measured), and what else is kept of each row (`extra`)."""

    figures: pd.DataFrame
    more: list[dict[str, Any]] | None = None
    said: str = ""  # of what was made beside figures


@dataclass
class Setting:
    """A model on the inputs of a stored run. `keys`: {router path: (its key in the run, layer, stack)}."""

    loaded: Loaded
    store: Store
    run: int
    sites: Sequence[Site]
    keys: dict[str, tuple[int, int | None, str]]
    report: Callable[[int, int], None] = field(default=lambda done, of: None)

    @property
    def model(self) -> Any:
        """The model, whose forward takes what batches hold."""
        return self.loaded.model

    def batches(self) -> Batches:
        """The run's forwards. InputError where they cannot be made again."""
        return Batches(self.store, self.run, self.loaded)

    def where(self, site: Site) -> dict[str, Any]:
        """Stack, layer and router, as keys of figure rows."""
        router, layer, stack = self.keys[site.path]
        return {"stack": stack, "layer": layer, "router": router}

    def routers(self, layers: str | int | None, kinds: Sequence[str] = ("token_choice",)) -> list[Site]:
        """Routers of the decoder in these layers ("3,5-7"; None: all) that were traced; an error if none fits."""
        wanted = None if layers is None else numbers(str(layers))
        found = [s for s in chosen(self.sites, wanted) if s.path in self.keys and s.stack == "decoder"]
        fitting = [s for s in found if s.kind in kinds]
        if not fitting:
            what = f"are {found[0].kind.replace('_', ' ')}" if found else "are not of a decoder that this run traced"
            raise ModelError(f"this takes routers of a decoder whose tokens choose their experts, and these {what}")
        return fitting

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the model is called with; without a cache."""
        takes = signature(self.model).parameters
        return {**batch.inputs, **({"use_cache": False} if "use_cache" in takes else {})}

    def calls(self, batch: Batch, sites: Sequence[Site]) -> tuple[Any, dict[str, list[Call]]]:
        """The model's output on a batch, and what `sites` did."""
        with torch.no_grad(), observed(list(sites)) as calls:
            output = self.model(**self.inputs(batch))
        return output, calls

    def each(self, batches: Batches) -> Iterator[Batch]:
        """The batches, told to `report`."""
        for number, batch in enumerate(batches):
            self.report(number, len(batches))
            yield batch
        self.report(len(batches), len(batches))


def setting(loaded: Loaded, store: Store, run: int | None, report: Callable[[int, int], None] | None = None) -> Setting:
    """On `run`, else the last complete run of this model. InputError where there is none, or it is of images."""
    if loaded.reads == "image":
        raise InputError(f"{loaded.name} reads images; experiments are made on models of text")
    number = baseline(store, loaded.model, run)
    rows = store.rows("select name, router, layer, stack from routers where run = ?", [number])
    keys = {name: (int(router), layer, stack) for name, router, layer, stack in rows}
    return Setting(loaded, store, number, find(loaded.model), keys, report or (lambda done, of: None))


def drawn(batches: Batches, count: int, seed: int) -> list[tuple[Batch, int, int, int]]:
    """(batch, row, place, document) of `count` places with a next token, as evenly over documents as they allow."""
    documents, rng, free = batches.document_of[0], np.random.default_rng(seed), []
    for batch in batches:
        for row, place in np.argwhere(batch.scored >= 0):
            document = int(documents[batch.read[row, place] - batches.first_token])
            free.append((batch, int(row), int(place), document))
    order = rng.permutation(len(free))
    seen: dict[int, int] = {}
    turn = []
    for at in order:
        document = free[at][3]
        seen[document] = seen.get(document, -1) + 1
        turn.append((seen[document], at))
    return [free[at] for _, at in sorted(turn, key=lambda pair: pair[0])[:count]]
