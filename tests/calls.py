"""Programs: what a user could do with a model, as steps that Hypothesis draws and `play` runs, traced or not.

`KINDS` are all kinds of steps; those in `OFF` are left out unless MOESCOPE_KINDS names them (`all`, or `turns,crop`).
"""

import copy
import functools
import os
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers.utils import logging
from witness import Call, Cell, Witness, state

import moescope
from moescope.models.tiny.found import config_class, model_class
from moescope.models.tiny.shrink import tiny_config
from moescope.models.tiny.special import SPECIAL, Special
from moescope.models.tiny.weights import refill

TWO = {"num_hidden_layers": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": TWO | {"attention_dropout": 0.1, "router_jitter_noise": 0.1},
    "deepseek_v3": TWO | {"mlp_layer_types": ["dense", "sparse"]},
    "gpt_oss": TWO | {"layer_types": ["sliding_attention", "full_attention"]},
    "zaya": TWO,
    "switch_transformers": {
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "nllb-moe": {"encoder_layers": 2, "decoder_layers": 2},
}
DECODERS = ("mixtral", "deepseek_v3", "gpt_oss", "zaya")
CACHED = ("mixtral", "deepseek_v3", "gpt_oss")  # plain key-value caches, which a user may crop, select from and go on with
SIDES, FORMS = ("left", "right"), ("2d", "bool", "4d", "none")


@dataclass(frozen=True)
class Step:
    """One thing that a user does; what the fields are for is said at each kind."""

    kind: str
    how: str = ""
    seed: int = 0
    lengths: tuple[int, ...] = (3,)
    parts: tuple[int, ...] = ()
    side: str = "left"
    form: str = "2d"


@dataclass(frozen=True)
class Program:
    """Steps on a family's model; `before` are hooks that are there when the first Tracer comes."""

    family: str
    seed: int
    before: tuple[str, ...]
    steps: tuple[Step, ...]
    ending: str = ""  # the exception that ends the first Tracer's block


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


ENDINGS = {"": None, "ValueError": ValueError(), "KeyboardInterrupt": KeyboardInterrupt()}


@dataclass
class Played:
    """What a program left."""

    came: list[Any]
    state: dict[str, Any]
    random: list[Any]
    tracers: list[tuple[Any, list[Call]]]


def play(program: Program, folder: Path | None) -> Played:
    """Run a program on a fresh copy of its family's model; traced into `folder`, or untraced."""
    from steps import STEPS, hook

    model = copy.deepcopy(pristine(program.family))
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(program.seed)
    scene = Scene(model, Witness(model), folder)
    with scene.witness.watching():
        for how in program.before:
            hook(scene, Step("hook", how))
        try:
            scene.open()
            for step in program.steps:
                STEPS[step.kind](scene, step)
        finally:
            for number in reversed(range(len(scene.tracers))):
                scene.close(number, ENDINGS[program.ending] if number == 0 else None)
        after = Step("call", lengths=(4,), form="none")
        STEPS["call"](scene, after)
        for other in scene.copies:
            scene.note(other(**simple(other)).logits)
    for handle in scene.hooks:
        handle.remove()
    generators = [torch.get_rng_state(), random.getstate(), str(np.random.get_state())]
    runs = [(tracer, scene.witness.calls[first:last]) for tracer, first, last in scene.tracers]
    return Played(scene.came, state(model), generators, runs)


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


GENERATE = ("greedy", "sample", "beams", "chunks", "static", "uncached", "ends", "lookup", "chat")
HOOKS = ("experts", "experts first", "experts named", "everywhere", "router", "output", "root")
ERRORS, WHERE = ("ValueError", "KeyboardInterrupt"), ("root", "experts", "after")
KINDS: dict[str, tuple[str, ...]] = {
    "call": ("", "inference", "embeds"),
    "turns": ("", "argmax"),
    "crop": ("",),
    "select": ("",),
    "reorder": ("",),
    "repeat": ("",),
    "packed": ("",),
    "generate": GENERATE,
    "streamer": ERRORS,
    "hook": HOOKS,
    "unhook": ("",),
    "raise": tuple(f"{error} {where}" for error in ERRORS for where in WHERE),
    "train": ("",),
    "copy": ("deep", "pickle"),
    "threads": ("one", "two"),
    "open": ("",),
    "close": ("first", "last"),
}
"""Every kind of step and the ways it has."""

OFF: frozenset[str] = frozenset(
    {"turns", "crop", "repeat", "packed", "generate:chunks", "generate:static", "generate:uncached", "generate:ends",
     "generate:lookup", "generate:chat", "hook:experts", "hook:experts named", "raise:KeyboardInterrupt root",
     "raise:KeyboardInterrupt experts", "raise:KeyboardInterrupt after", "copy", "open", "nllb-moe/train", "before:experts",
     "before:experts first", "before:experts named", "before:output", "form:4d"}
)  # fmt: skip
"""Kinds, `kind:how`, `family/kind`, `before:how` or `form:mask`, that are known to be recorded wrongly; nothing is to stay here."""


def on(name: str) -> bool:
    """Whether a way of hooks before, or a form of masks, is tried."""
    return name not in OFF or bool(os.environ.get("MOESCOPE_KINDS"))


def switched_on(family: str) -> list[tuple[str, str]]:
    """Kinds with their ways that a family can do, but those that are off."""
    named = os.environ.get("MOESCOPE_KINDS", "")
    off = frozenset() if named else OFF
    wanted = set(named.split(",")) if named not in ("", "all") else None
    every = [(kind, how) for kind, hows in KINDS.items() for how in hows if fits(family, kind, how)]
    names = {(k, h): {k, f"{k}:{h}", f"{family}/{k}"} for k, h in every}
    return [one for one in every if not names[one] & off and (wanted is None or names[one] & wanted)]


def fits(family: str, kind: str, how: str) -> bool:
    """Whether a family can do that at all."""
    if kind in ("turns", "crop", "select", "reorder", "repeat"):
        return family in CACHED and (kind != "crop" or family != "gpt_oss")
    if kind == "packed" or how in ("chunks", "static", "lookup", "chat", "embeds"):
        return family in (CACHED if how != "lookup" else ("mixtral", "deepseek_v3"))
    return True


@st.composite
def programs(draw: st.DrawFn, family: str) -> Program:
    """Up to seven steps."""
    ways = switched_on(family)
    forms = [f for f in FORMS if (f != "4d" or family in CACHED) and on(f"form:{f}")]
    lengths = st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple)
    parts = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
    step = st.builds(
        lambda way, *rest: Step(*way, *rest), st.sampled_from(ways), st.integers(0, 99), lengths, parts,
        st.sampled_from(SIDES), st.sampled_from(forms),
    )  # fmt: skip
    hooks = [how for kind, how in ways if kind == "hook" and on(f"before:{how}")]
    before = draw(st.lists(st.sampled_from(hooks), max_size=1).map(tuple)) if hooks else ()
    steps = tuple(draw(st.lists(step, min_size=1, max_size=7)))
    return Program(family, draw(st.integers(0, 9)), before, steps, draw(st.sampled_from(list(ENDINGS))))
