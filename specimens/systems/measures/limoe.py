"""Are there modality experts without being told? `python -m specimens.systems.measures.limoe [PLAIN]`.

The 400 held-out pictures with sentences that name their class, in batches of 20, as in training. PLAIN is the folder of the
twin that was trained without the entropy losses (`python -m specimens.systems.limoe --entropy 0 --folder PLAIN`). Of what ran
`moescope analyze modality` is asked; of what was chosen, dropped or not, the same figure over the same null.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch

import moescope
from moescope import analyses
from moescope.analyses import Answer
from moescope.analyses._shared.answer import gather
from moescope.analyses._shared.arrays.document_counts import tables
from moescope.analyses._shared.dealt_labels import settled
from moescope.analyses._shared.scope import scope
from moescope.analyses._shared.value_figures import ByValue
from specimens.systems.limoe import NAME, SEED, evaluation
from specimens.systems.measures.shared import also, both, by_layer, cell, draw, fill, q_said, table, verdict

BATCH = 20
MODALITY = "case t.unit when 'text' then 'text' else 'picture' end"
LOADS = f"""select r.layer, {MODALITY} as modality, a.expert, count(*) as chosen, count(*) filter (not a.dropped) as ran
from assignments a join tokens t using (run, token) join routers r using (run, router) group by all order by all"""
CHOSEN = f"""with units as ({{units}}) select u.unit, a.router, {MODALITY} as label, a.expert, count(*) as n
from assignments a join tokens t using (token) join units u using (sequence) group by all"""


@dataclass(frozen=True)
class Found:
    """Of one model: the analysis's answer, information of what was chosen by layer, and tokens by layer, modality, expert."""

    answer: Answer
    chosen: list[Any]
    loads: pd.DataFrame


def ask(model: Any, store: Path) -> Found:
    """Traces the 400 pairs with all router logits, and asks."""
    given, _ = evaluation()
    with moescope.Tracer(model, store, logits=1.0), torch.no_grad():
        for start in range(0, len(given["input_ids"]), BATCH):
            model(**{k: v[start : start + BATCH] for k, v in given.items()})
    with moescope.open(store) as found:
        here = scope(found, 0)
        each = [ByValue(t, "modality", "modality") for t in tables(here, CHOSEN.format(units=here.units_sql()))]
        frame = gather(settled([row for one in each for row in one.information()]))
        loads = pd.DataFrame(found.rows(LOADS), columns=["layer", "modality", "expert", "chosen", "ran"])
    return Found(analyses.run("modality", store), by_layer(frame[frame["estimator"] == "less null mean"]), loads)


def ran(found: Found, layer: int) -> np.ndarray:
    """(2, experts) tokens of pictures and texts that ran in a layer."""
    here = found.loads[found.loads["layer"] == layer]
    return here.pivot(index="modality", columns="expert", values="ran").reindex(columns=range(8)).fillna(0).to_numpy()


def experts(load: np.ndarray) -> list[str]:
    """Which experts are of one modality: nine tenths of their tokens or more; and which are dead."""
    share = load[1] / np.maximum(load.sum(0), 1)
    alive = load.sum(0) > 0
    kinds = (alive & (share <= 0.1), alive & (share >= 0.9), alive & (share > 0.1) & (share < 0.9), ~alive)
    return [", ".join(map(str, np.flatnonzero(kind))) or "none" for kind in kinds]


def dropped(found: Found, layer: int) -> list[str]:
    """Shares of the pictures' and the texts' choices that were dropped."""
    sums = found.loads[found.loads["layer"] == layer].groupby("modality")[["chosen", "ran"]].sum()
    return [f"{share:.1%}" for share in 1 - sums["ran"] / sums["chosen"]]


def entropies(answer: Answer, layer: int) -> list[str]:
    """Local and global entropy of pictures, then of texts."""
    found = []
    for modality in ("image", "text"):
        for name in ("local entropy (nats)", "global entropy (nats)"):
            (row,) = by_layer(answer.figures(name, layer=layer, subset=f"modality={modality}"))
            found.append(cell(row, 2))
    return found


def report(found: dict[str, Found]) -> str:
    """Two tables, and what the analysis says of every model."""
    first, second = [], []
    for model, one in found.items():
        told = by_layer(one.answer.figures("I(modality; expert) (bits)", estimator="less null mean"))
        for row, chosen in zip(told, one.chosen, strict=True):
            layer = int(row["layer"])
            first.append([model, layer, *experts(ran(one, layer)), cell(chosen), cell(row), q_said([row])])
            second.append([model, layer, *entropies(one.answer, layer), *dropped(one, layer)])
    head = ["", "layer", "picture experts", "text experts", "mixed", "dead", "I(chosen; modality)", "I(ran; modality)", "q"]
    more = [f"{name}, {modality}" for modality in ("picture", "text") for name in ("local", "global")]
    more = ["", "layer", *more, "dropped, picture", "dropped, text"]
    said = [verdict(model, one.answer) for model, one in found.items()]
    return "\n\n".join([table(head, first), table(more, second), "`moescope analyze modality`:", "\n".join(said)])


def picture(found: dict[str, Found]) -> Any:
    """Share of the choices of each modality by expert."""
    frames = {
        model: one.loads.assign(layer=model + ", layer " + one.loads["layer"].astype(str)) for model, one in found.items()
    }
    frame = pd.concat(frames, ignore_index=True)
    frame["share"] = frame["chosen"] / frame.groupby(["layer", "modality"])["chosen"].transform("sum")
    base = alt.Chart(frame.drop(columns=["chosen", "ran"])).mark_bar().encode(
        x=alt.X("expert:O"), xOffset="modality:N", y=alt.Y("share:Q", title="share of tokens"),
        color=alt.Color("modality:N", title=None), facet=alt.Facet("layer:N", title=None, columns=2, sort=None),
    )  # fmt: skip
    return base.properties(width=230, height=110)


def main() -> None:
    """Traces, asks, and fills the report."""
    torch.set_num_threads(1)
    models = both(NAME, SEED)
    if len(sys.argv) > 1:
        models["without entropy losses"] = also(NAME, sys.argv[1])[0]
    with tempfile.TemporaryDirectory() as folder:
        found = {name: ask(model, Path(folder) / f"{n}.duckdb") for n, (name, model) in enumerate(models.items())}
    draw("limoe", picture(found))
    fill(NAME, report(found))


if __name__ == "__main__":
    main()
