"""A run that was recorded inside an engine against Transformers' own forward of the same tokens, by moescope's tracer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import moescope

Array = np.ndarray[Any, Any]
ROUTED = """select s.sequence, t.position, r.layer, list(a.expert order by a.expert) as experts,
  list(a.weight order by a.expert) as weights from assignments a join tokens t using (token) join sequences s using (sequence)
  join routers r on r.router = a.router where s.run = {run} group by all order by all"""


@dataclass
class Agreement:
    """Over all decisions: how many there are, in how many the sets are equal, the largest difference of a weight in those."""

    decisions: int
    equal: int
    weights: float


def sequences(store: Path, run: int = 0) -> dict[int, dict[str, Any]]:
    """By number: document, tokens of the prompt, all vocabulary ids, places that were generated."""
    with moescope.open(store) as opened:
        rows = opened.sql(
            "select s.sequence, s.document, s.tokens as prompt, list(t.vocab_id order by t.position) as ids, "
            "list(t.generated order by t.position) as generated from sequences s join tokens t using (sequence) "
            f"where s.run = {run} group by all order by all"
        ).to_dicts()
    return {int(row["sequence"]): row for row in rows}


def routed(store: Path, run: int = 0) -> dict[tuple[int, int, int], tuple[list[int], list[float]]]:
    """By sequence, position and layer: experts in ascending order, and their weights."""
    with moescope.open(store) as opened:
        rows = opened.sql(ROUTED.format(run=run)).to_dicts()
    return {(int(r["sequence"]), int(r["position"]), int(r["layer"])): (list(r["experts"]), list(r["weights"])) for r in rows}


def traced(model: Path, told: dict[int, dict[str, Any]], store: Path) -> dict[tuple[int, int, int], Any]:
    """The same of a trace of these sequences, each alone."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    numbers = list(told)
    with moescope.Tracer(loaded, store), torch.no_grad():
        for number in numbers:
            loaded(input_ids=torch.tensor([list(map(int, told[number]["ids"]))]))
    return {(numbers[s], position, layer): found for (s, position, layer), found in routed(store).items()}


def agreement(store: Path, model: Path, folder: Path, run: int = 0, places: int | None = None) -> Agreement:
    """Every stored decision beside the trace's, or those of the first `places` tokens of each sequence."""
    mine = {key: found for key, found in routed(store, run).items() if places is None or key[1] < places}
    theirs = traced(model, sequences(store, run), folder / "traced.duckdb")
    assert mine.keys() <= theirs.keys()
    equal = [key for key, (experts, _) in mine.items() if experts == theirs[key][0]]
    off = max((float(np.abs(np.subtract(mine[key][1], theirs[key][1])).max()) for key in equal), default=0.0)
    return Agreement(len(mine), len(equal), off)
