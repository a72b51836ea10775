"""Which column of a table is what."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import doing
from .._core.captured import Fault

COLUMNS = {
    "expert": "the expert: a number, a list of them, or several columns e0,e1,...",
    "layer": "the layer's own number",
    "sequence": "which sequence a token is of",
    "position": "the token's place in it, from 0",
    "token": "the token: a vocabulary id, or its text",
    "weight": "the routing weight, in the form of `expert`",
    "rank": "0 for the largest weight",
    "slot": "the router's own order",
    "count": "how often, in a table of counts",
    "generated": "whether the model made the token",
    "run": "one run is stored for each of its values",
    "labels": "columns that label sequences (or counts): a,b",
}
_NAMES = {
    "expert": ("expert", "experts", "expert_id", "expert_idx", "expert_ids", "selected_experts", "topk_ids", "eid"),
    "layer": ("layer", "layer_idx", "layer_id", "layer_index"),
    "sequence": (
        "sequence",
        "sequence_id",
        "seq",
        "request",
        "request_id",
        "prompt_id",
        "sample",
        "sample_id",
        "document",
        "doc",
    ),
    "position": ("position", "pos", "token_idx", "token_index", "token_position"),
    "token": ("token", "token_id", "vocab_id", "input_id", "token_text"),
    "weight": ("weight", "weights", "router_weight", "routing_weight", "router_scores", "topk_weights", "gate"),
    "rank": ("rank",),
    "slot": ("slot", "k_idx", "topk_idx"),
    "count": ("count", "counts", "n", "assignments", "activations", "freq"),
    "generated": ("generated", "is_generated"),
    "run": ("run",),
    "labels": (),
}
_LABELS = ("domain", "class", "genre", "language", "task", "topic", "dataset")


@dataclass
class Mapped:
    """{role: column}; `wide`: several columns of experts and weights; `labels`: columns that label."""

    of: Mapping[str, str]
    experts: list[str]
    weights: list[str]
    labels: list[str]
    listed: bool = False

    @property
    def counts(self) -> bool:
        """Whether rows are counts."""
        return "count" in self.of and "position" not in self.of and "sequence" not in self.of


def said_in(file: Path) -> dict[str, Any]:
    """What a file of columns says. InputError where it is no JSON or TOML object."""
    with doing(f"reading the columns in {file}", InputError):
        text = file.read_text()
        found = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    if not isinstance(found, dict):
        raise InputError(f'{file} holds no object: write {{"expert": "expert_id", ...}}')
    if unknown := sorted(found.keys() - COLUMNS.keys()):
        raise InputError(f"{file} maps {unknown[0]!r}, which is none of: {', '.join(COLUMNS)}")
    return found


def mapped(columns: Sequence[str], options: Mapping[str, Any], where: str) -> Mapped:
    """Which of these columns is what. Fault where one that was said is not there, or no expert and layer is found."""
    of: dict[str, Any] = {}
    for role, names in _NAMES.items():
        said = options.get(role)
        found = (
            [] if said == "none" else _several(said) if said is not None else [name for name in names if name in columns][:1]
        )
        for name in found:
            if name not in columns:
                raise Fault(f"{where} has no column {name!r}, which {role} was said to be; it has: {', '.join(columns)}")
        of[role] = found
    labels = of.pop("labels") or [n for n in _LABELS if n in columns and not any(n in taken for taken in of.values())]
    experts = of["expert"] or _numbered(columns, ("e", "expert_", "expert"))
    weights = of["weight"] or (_numbered(columns, ("w", "weight_", "weight")) if len(experts) > 1 else [])
    if not experts or not of["layer"]:
        what = "expert" if not experts else "layer"
        raise Fault(f"{where} has no column that is the {what}; say which: -p {what}=COLUMN (columns: {', '.join(columns)})")
    if weights and len(weights) != len(experts):
        raise Fault(f"{where}: {len(experts)} columns of experts and {len(weights)} of weights; give one of each")
    single = {role: names[0] for role, names in of.items() if names and role not in ("expert", "weight")}
    return Mapped(single, experts, weights, labels)


def _several(said: Any) -> list[str]:
    if isinstance(said, list):
        return [str(one) for one in said]
    return [part.strip() for part in str(said).split(",")]


def _numbered(columns: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Columns e0, e1, ... of the first stem that has them."""
    for stem in stems:
        found: list[str] = []
        while f"{stem}{len(found)}" in columns:
            found.append(f"{stem}{len(found)}")
        if found:
            return found
    return []
