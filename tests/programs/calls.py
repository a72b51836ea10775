"""Programs: what a user could do with a model, as steps that Hypothesis draws and `play.play` runs, traced or not.

`KINDS` are all kinds of steps; those in `OFF` are left out unless MOESCOPE_KINDS names them (`all`, or `turns,crop`).
"""

import os
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

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


ENDINGS: dict[str, BaseException | None] = {"": None, "ValueError": ValueError(), "KeyboardInterrupt": KeyboardInterrupt()}

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

OFF: frozenset[str] = frozenset()
"""Kinds, `kind:how`, `family/kind`, `before:how` or `form:mask`, known to be recorded wrongly; nothing is to stay here."""


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
    whole = family in CACHED and family != "gpt_oss"  # a sliding window's cache is shorter than one mask for all layers
    forms = [f for f in FORMS if (f != "4d" or whole) and on(f"form:{f}")]
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
