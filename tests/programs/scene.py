"""A model that steps are done with, what is known of its sequences, and what came out of it."""

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from calls import FAMILIES, Step
from transformers.utils import logging
from witness import Cell, Witness

import moescope
from moescope.models.tiny.model_types import config_class, model_class
from moescope.models.tiny.shrink import tiny_config
from moescope.models.tiny.special import SPECIAL, Special
from moescope.models.tiny.weights import refill


@functools.cache
def pristine(family: str) -> Any:
    """A tiny model that nobody runs: it is copied."""
    logging.set_verbosity_error()
    fields = SPECIAL.get(family, Special()).fields | FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(family)._from_config(tiny_config(config_class(family), **fields)).eval()
        refill(model, 0)
    model.generation_config.eos_token_id, model.config.eos_token_id = None, None
    model.generation_config.decoder_start_token_id = model.generation_config.pad_token_id = 0
    return model


@dataclass
class Rows:
    """The sequences of a batch as they go on."""

    keys: list[int | None]
    counts: list[int]

    def cells(self, ids: Any, real: Any, generated: Any = False) -> list[Cell]:
        """The real places of (B, T) ids; counts them. `generated`: of all, or (B, T)."""
        found = []
        for row, places in enumerate(real.tolist()):
            for place, there in enumerate(places):
                if there:
                    made = generated if not torch.is_tensor(generated) else bool(generated[row, place])
                    at = row * len(places) + place
                    found.append(Cell(at, self.keys[row], self.counts[row], int(ids[row, place]), made))
                    self.counts[row] += 1
        return found


@dataclass
class Scene:
    """A model, what is known of it, and what came out of it."""

    model: Any
    witness: Witness
    folder: Path | None  # None: untraced
    came: list[Any] = field(default_factory=list)
    hooks: list[Any] = field(default_factory=list)
    tracers: list[Any] = field(default_factory=list)  # (tracer or None, first call, last call or None)
    copies: list[Any] = field(default_factory=list)
    _keys: int = 0

    def rows(self, count: int) -> Rows:
        """New sequences."""
        self._keys += count
        return Rows(list(range(self._keys - count, self._keys)), [0] * count)

    def note(self, value: Any) -> Any:
        """Keep what came out: tensors and names, to be compared."""
        self.came.append(value.detach().clone() if torch.is_tensor(value) else value)
        return value

    def call(self, told: Callable[[Mapping[str, Any]], Any], **inputs: Any) -> Any:
        """One forward of known tokens; without gradients unless it trains."""
        self.witness.tell(told)
        try:
            with nullcontext() if self.model.training else torch.no_grad():
                output = self.model(**inputs)
        finally:
            self.witness.tell(None)
        self.note(output.logits)
        return output

    def open(self) -> None:
        """One more Tracer on the model."""
        tracer = None
        if self.folder is not None:
            tracer = moescope.Tracer(self.model, self.folder / f"{len(self.tracers)}.duckdb")
            tracer.__enter__()
        self.tracers.append([tracer, len(self.witness.calls), None])

    def close(self, number: int, error: BaseException | None = None) -> None:
        """End one of the Tracers that are open."""
        tracer, _, last = self.tracers[number]
        if last is None:
            self.tracers[number][2] = len(self.witness.calls)
            if tracer is not None:
                with suppress(moescope.errors.ModelError):  # nothing was run, or so it says: see `wrong`
                    tracer.__exit__(type(error) if error else None, error, None)


def simple(model: Any) -> dict[str, Any]:
    """Inputs for a model that nobody counts."""
    x = torch.arange(3, 15).reshape(2, 6)
    return {"input_ids": x} | ({"decoder_input_ids": x} if model.config.is_encoder_decoder else {})


def batch(step: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids and which are real, padded on the step's side; without a mask there is no padding."""
    lengths = [max(step.lengths)] * len(step.lengths) if step.form == "none" else list(step.lengths)
    return ids_of(lengths, step.side, step.seed)


def ids_of(lengths: list[int], side: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids above the special ones, 0 for padding, and which are real."""
    longest = max(lengths)
    x = torch.randint(3, 97, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    place = torch.arange(longest)
    real = torch.stack([place >= longest - n if side == "left" else place < n for n in lengths])
    return x * real, real


def mask_of(real: torch.Tensor, form: str, new: int) -> torch.Tensor | None:
    """A mask over (B, past + new) keys for the `new` last places, in a form that users give."""
    if form == "none":
        return None
    if form != "4d":
        return real if form == "bool" else real.long()
    keys = torch.arange(real.shape[1])
    seen = (keys <= keys[-new:, None]) & real[:, None, :]
    return torch.zeros(len(real), 1, *seen.shape[1:]).masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
