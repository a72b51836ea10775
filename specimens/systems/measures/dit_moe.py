"""Does the routing of DiT-MoE follow the timestep, or the class? `python -m specimens.systems.measures.dit_moe`.

100 held-out pictures, 10 of each class. First every noise level is shown with the timestep that belongs to it, then with every
timestep, no class told: a gate may follow one of the two. Then, at t = 500, every picture with every class told. What experts
tell of each is asked of `moescope analyze conditions`; what is shown and seen is said to the tracer as a condition too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

import moescope
from moescope import analyses
from moescope.analyses import Answer
from specimens.corpora.fashion import CLASSES
from specimens.systems.dit_moe import NAME, SEED
from specimens.systems.measures.shared import both, by_layer, cell, draw, fill, q_said, table, verdict
from specimens.systems.pictures import heldout, noised

TIMES, EACH, BATCH = (100, 300, 500, 700, 900), 10, 50
WAYS: dict[str, list[tuple[int, int, int | None]]] = {  # noise shown, timestep told, class told; a run each
    "natural": [(t, t, None) for t in TIMES],
    "crossed": [(s, t, None) for s in TIMES for t in TIMES],
    "classes": [(500, 500, c) for c in range(10)],
}
ASKED = (  # run, kind of condition, column
    ("natural", "timestep", "timestep, told and shown"), ("crossed", "timestep", "told, whatever is shown"),
    ("crossed", "shown", "shown, whatever is told"), ("natural", "seen", "class seen, none told"),
    ("classes", "class", "class told, t = 500"), ("classes", "seen", "class seen, whatever is told"),
)  # fmt: skip
SQL = """with loads as (select c.value as timestep, r.layer, a.expert, count(*) as n from assignments a
join routers r using (run, router) join conditions c on c.run = a.run and c.forward = a.forward and c.kind = 'timestep'
where a.run = 0 group by all)
select timestep, layer, expert, n / sum(n) over (partition by timestep, layer) as share from loads order by all"""


def chosen() -> tuple[Tensor, np.ndarray]:
    """The pictures and their classes, classes in turn."""
    pictures, labels = heldout()
    order = torch.stack([(labels == c).nonzero()[:EACH, 0] for c in range(10)], 1).flatten()
    return pictures[order], labels[order].numpy()


def trace(model: Any, store: Path, ways: list[tuple[int, int, int | None]]) -> None:
    """One more run: every picture in every way."""
    pictures, labels = chosen()
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(2))
    with moescope.Tracer(model, store) as tracer, torch.no_grad():
        for start in range(0, len(pictures), BATCH):
            here = slice(start, start + BATCH)
            seen = [CLASSES[label] for label in labels[here]]
            with tracer.denoising():
                for shown, time, label in ways:
                    part = noised(pictures[here], torch.full((BATCH,), shown / 1000), noise[here])
                    classes = {} if label is None else {"class_labels": torch.full((BATCH,), label)}
                    with tracer.conditions(shown=shown, seen=seen):
                        model(part, torch.full((BATCH,), float(time)), **classes)


def ask(store: Path) -> dict[str, Answer]:
    """The answers of `conditions`, by column."""
    runs = list(WAYS)
    return {column: analyses.run("conditions", store, runs.index(run), kind=kind) for run, kind, column in ASKED}


def figures(answer: Answer) -> list[Any]:
    """Information less the mean of its null, a row a layer."""
    return by_layer(answer.figures("I(condition; expert) (bits)", estimator="less null mean"))


def report(found: dict[str, dict[str, Answer]]) -> str:
    """Two tables, and what the analysis says of the trained model."""
    parts = []
    for columns, digits in (([c for *_, c in ASKED[:3]], 3), ([c for *_, c in ASKED[3:]], 4)):
        rows = []
        for model, answers in found.items():
            for some in zip(*(figures(answers[column]) for column in columns), strict=True):
                rows.append([model, some[0]["layer"], *(cell(row, digits) for row in some), q_said(some)])
        parts.append(table(["", "layer", *columns, "largest q"], rows))
    said = [verdict(column, found["trained"][column]) for run, _, column in ASKED if run == "natural"]
    return "\n\n".join([*parts, "`moescope analyze conditions`, trained:", "\n".join(said)])


def picture(store: Path) -> Any:
    """Share of assignments by expert and timestep, a panel for each layer."""
    with moescope.open(store) as found:
        frame = pd.DataFrame(found.rows(SQL), columns=["timestep", "layer", "expert", "share"])
    frame["layer"] = [f"layer {layer}" for layer in frame["layer"]]
    base = alt.Chart(frame.astype({"timestep": int})).mark_rect().encode(
        x=alt.X("timestep:O", title="timestep (1000: noise)"), y=alt.Y("expert:O"),
        color=alt.Color("share:Q", title="share of load", scale=alt.Scale(domainMin=0)),
        column=alt.Column("layer:N", title=None),
    )  # fmt: skip
    return base.properties(width=130, height=170)


def main() -> None:
    """Traces, asks, and fills the report."""
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in both(NAME, SEED).items():
            store = Path(folder) / f"{name}.duckdb"
            for ways in WAYS.values():
                trace(model, store, ways)
            found[name] = ask(store)
            if name == "trained":
                draw("dit-moe", picture(store))
    fill(NAME, report(found))


if __name__ == "__main__":
    main()
