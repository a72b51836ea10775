"""A batch of which some texts have media, as the model takes it: what the processor makes, and texts alone beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ...contracts import find
from ...errors import InputError, ModelError
from ...foreign import one_line, said
from ...models.loading import Loaded
from ...models.multimodal.processor import batch_of
from ...models.multimodal.shown import shown
from ...routers.calls import signature
from ...weights import home, precision
from .windows import Window


def asked_inputs(loaded: Loaded, batch: Sequence[Window], pad: int, left: bool) -> dict[str, Any]:
    """Arguments of the model for a batch, in its order. InputError where the processor makes other ids than it did alone."""
    seen = [n for n, window in enumerate(batch) if window.asked is not None]
    made = batch_of(loaded.own_processor(), [batch[n].asked for n in seen], left)
    ids, mask = made["input_ids"], made["attention_mask"].bool()
    for row, n in enumerate(seen):
        if ids[row][mask[row]].tolist() != batch[n].ids:
            info = batch[n].info
            raise InputError(
                f"{info.source}, row {info.row}: the processor makes other ids of it in a batch than alone; use --batch-size 1"
            )
    told = [(batch[n].info.pieces, batch[n].info.media) for n in seen]
    for n, pictures in zip(seen, shown(loaded.own_processor(), made, told)):
        batch[n].info.shown.update(pictures)
    fill = {name: 0 for name, value in made.items() if torch.is_tensor(value) and value.shape == ids.shape} | {"input_ids": pad}
    rows = _rows(batch, seen, {name: made[name] for name in fill}, fill, left)
    inputs = {**{name: value for name, value in made.items() if name not in fill}, **rows}
    device, kind = home(loaded.model), precision(loaded.model)
    placed = {name: _placed(value, device, kind) for name, value in inputs.items()}
    return {name: value for name, value in placed.items() if _takes(loaded.model, name)}


def to_prove_on(loaded: Loaded, batch: Sequence[Window], pad: int) -> dict[str, Any] | None:
    """A text with a picture as the proof's inputs, for a model whose tower for pictures has routers; None if it has none.

    Made-up tokens never reach those.
    """
    seen = [window for window in batch if window.asked is not None]
    if not seen or all(site.stack != "vision" for site in find(loaded.model)):
        return None
    return asked_inputs(loaded, seen[:2], pad, False)


@contextmanager
def said_of_media(loaded: Loaded, batch: Sequence[Window]) -> Iterator[None]:
    """ModelError naming the records where a model fails on what its own processor makes of their media."""
    if all(window.asked is None for window in batch):
        yield
        return
    try:
        yield
    except (ValueError, IndexError, KeyError, TypeError) as error:  # what models raise where features and tokens do not fit
        rows = ", ".join(f"{window.info.source}, row {window.info.row}" for window in batch if window.asked is not None)
        more = "; try --batch-size 1" if len(batch) > 1 else ""
        made = type(loaded.own_processor()).__name__
        raise ModelError(f"{loaded.name} fails on what {made} makes of {one_line(rows)} ({said(error)}){more}") from error


def _rows(
    batch: Sequence[Window], seen: list[int], made: dict[str, torch.Tensor], fill: dict[str, int], left: bool
) -> dict[str, torch.Tensor]:
    """(sequences, places) of every input that has one value a token; of texts alone: ids, mask and zeros."""
    places = max(made["input_ids"].shape[1], *(len(window) for window in batch))
    found: dict[str, torch.Tensor] = {}
    for name, values in made.items():
        whole = torch.full((len(batch), places), fill[name], dtype=values.dtype)
        for row, n in enumerate(seen):
            own = values[row][made["attention_mask"][row].bool()]
            whole[n, _slot(places, len(own), left)] = own
        for n, window in enumerate(batch):
            if window.asked is None and name in ("input_ids", "attention_mask"):
                own = torch.tensor(window.ids) if name == "input_ids" else torch.ones(len(window), dtype=values.dtype)
                whole[n, _slot(places, len(own), left)] = own.to(values.dtype)
        found[name] = whole
    return found


def _slot(places: int, own: int, left: bool) -> slice:
    return slice(places - own, places) if left else slice(0, own)


def _placed(value: Any, device: torch.device, kind: torch.dtype) -> Any:
    if not torch.is_tensor(value):
        return value
    return value.to(device, kind) if value.is_floating_point() else value.to(device)


def _takes(model: Any, name: str) -> bool:
    """Whether a model's forward has an argument of this name, or takes any."""
    there = signature(model)
    return name in there.parameters or any(one.kind is one.VAR_KEYWORD for one in there.parameters.values())
