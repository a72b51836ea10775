"""Models that answer: loaded when they are first asked for, proved, and described for whoever would ask them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..contracts import Site, find
from ..errors import InputError
from ..models.loading import Loaded, load
from ..proof import images_per_group
from ..store.ranking import Ranking, learn, plainest
from ..tracer.data.feeding import override
from ..tracer.data.windows import context
from ..weights import size, weights
from .changes import place_of
from .listening import Row

SMALL = 100_000_000  # parameters below which one thread is faster than several
NO_NEXT = ("expert_choice", "soft")


@dataclass(eq=False)
class Ready:
    """A model that was loaded and proved."""

    loaded: Loaded
    sites: list[Site]
    rules: dict[int, Ranking] = field(default_factory=dict)  # by which routers rank, as their decisions bear out
    routers: list[Row] = field(default_factory=list)  # rows of `routers`, in the order of their keys
    threads: int = 1
    overrides: Row = field(default_factory=dict)  # as of `moescope trace --set`, for all that is asked

    @property
    def generates(self) -> bool:
        """Whether it goes on with a text."""
        return self.loaded.pipe is None and self.loaded.reads == "text" and hasattr(self.loaded.model, "generate")

    @property
    def encodes(self) -> bool:
        """Whether the text that it makes is apart from the one it is given."""
        return bool(getattr(getattr(self.loaded.model, "config", None), "is_encoder_decoder", False))

    def about(self) -> Row:
        """What a page needs to ask it."""
        config = getattr(self.loaded.model, "config", None)
        return {
            "name": self.loaded.name, "reads": self.loaded.reads, "generates": self.generates, "encodes": self.encodes,
            "chat": bool(getattr(self.loaded.tokenizer, "chat_template", None)),
            "pictures": self.loaded.reads == "image" or self.loaded.own_processor() is not None,
            "context": min(context(self.loaded), 1 << 20), "parameters": sum(size(w) for _, w in weights(self.loaded.model)),
            "classes": {str(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()},
            "routers": [self._router(row) for row in self.routers], "proved": bool(self.routers),
            "overrides": self.overrides,
        }  # fmt: skip

    def told(self, head: Row) -> list[Row]:
        """The routers of a run that begins, where they were not known before."""
        if not self.routers:
            self.routers = head["routers"]
        return [self._router(row) for row in self.routers]

    def _router(self, row: Row) -> Row:
        kept = ("router", "name", "layer", "stack", "kind", "experts", "top_k", "shared_experts", "score")
        site = next(site for site in self.sites if site.path == row["name"])
        rule = self.rules.get(row["router"])
        return {name: row[name] for name in kept} | {"place": place_of(self.sites, site), "rule": rule.words if rule else None}


def begin(name: str, how: Mapping[str, Any]) -> Ready:
    """Load a model and find its routers. InputError and ModelError in one sentence where that cannot be."""
    loaded = load(name, **how)
    if loaded.by_hand:
        raise InputError(f"{name} takes more than a prompt or a picture, so it cannot be tried so; trace it in Python")
    small = sum(size(w) for _, w in weights(loaded.model)) < SMALL
    alone = (
        {"group_size": "batch"} if images_per_group(loaded.model) > 1 else {}
    )  # one picture does not fill a group of several
    if alone:
        override(loaded, alone)
    return Ready(loaded, find(loaded.model), threads=1 if small else torch.get_num_threads(), overrides=alone)


def learned(ready: Ready, routers: Sequence[Row], decisions: Sequence[Row], logits: Sequence[Row]) -> None:
    """From a first prompt, on which nothing was changed: how routers rank."""
    ready.routers = list(routers)
    for row in routers:
        if row["kind"] in NO_NEXT:
            continue
        chosen = {(d["iteration"], d["token"]): d["experts"] for d in decisions if d["router"] == row["router"]}
        pairs = [
            (x["logits"], e) for x in logits if x["router"] == row["router"] and (e := chosen.get((x["iteration"], x["token"])))
        ]
        rule = learn(row["score"], row["extra"], [x for x, _ in pairs], [e for _, e in pairs])
        ready.rules[row["router"]] = rule or plainest(row["score"])
