"""Does the routing of DiT-MoE follow the timestep, or the class? `python -m specimens.systems.measures.dit_moe`.

100 held-out pictures, 10 of each class. First every noise level is shown with every timestep told, no class: a gate may
follow one of the two. Then, at t = 500, every picture with every class told. All from stores that Tracer wrote.
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
from specimens.systems.dit_moe import NAME, SEED
from specimens.systems.measures.shared import across, both, cell, draw, fill, ordered, table, told, within
from specimens.systems.pictures import heldout, noised

TIMES, EACH, BATCH = (100, 300, 500, 700, 900), 10, 50
SQL = """select r.layer, t.sequence, s.value, c.value, a.expert, count(*) from assignments a
join tokens t using (token) join routers r using (router)
join conditions s on s.forward = a.forward and s.kind = 'shown'
join conditions c on c.forward = a.forward and c.kind = ? group by all"""


def chosen() -> tuple[Tensor, np.ndarray]:
    """The pictures and their classes, classes in turn."""
    pictures, labels = heldout()
    order = torch.stack([(labels == c).nonzero()[:EACH, 0] for c in range(10)], 1).flatten()
    return pictures[order], labels[order].numpy()


def trace(model: Any, store: Path, pictures: Tensor, kind: str) -> np.ndarray:
    """Counts (layers, pictures, shown, told, experts); what is told is the timestep, or at t = 500 the class."""
    ways = [(s, t, None) for s in TIMES for t in TIMES] if kind == "timestep" else [(500, 500, c) for c in range(10)]
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(2))
    with moescope.Tracer(model, store) as tracer, torch.no_grad():
        for start in range(0, len(pictures), BATCH):
            here = slice(start, start + BATCH)
            with tracer.denoising():
                for shown, time, label in ways:
                    part = noised(pictures[here], torch.full((BATCH,), shown / 1000), noise[here])
                    classes = {} if label is None else {"class_labels": torch.full((BATCH,), label)}
                    with tracer.conditions(shown=shown):
                        model(part, torch.full((BATCH,), float(time)), **classes)
    shown, said = sorted({w[0] for w in ways}), list(TIMES if kind == "timestep" else range(10))
    with moescope.open(store) as found:
        (layers, experts), *_ = found.rows("select count(*), max(experts) from routers")
        rows = found.rows(SQL, [kind])
    sizes = (layers, len(pictures), len(shown), len(said), experts)
    return ordered(rows, sizes, lambda r: (r[0], r[1], shown.index(r[2]), said.index(r[3]), r[4]))


def by_time(counts: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Of one layer (pictures, shown, told, experts): what experts tell of timestep, told alone, shown alone, and class."""
    diagonal = np.stack([counts[:, i, i] for i in range(len(TIMES))], 1)  # (pictures, times, experts)
    turned = counts.swapaxes(1, 2)
    classes = across(diagonal, labels)
    return [
        told(diagonal[:, None], within(diagonal[:, None])), told(counts, within(counts)), told(turned, within(turned)),
        told(*classes),
    ]  # fmt: skip


def report(found: dict[str, tuple[np.ndarray, np.ndarray]], labels: np.ndarray) -> str:
    """Two tables."""
    first, second = [], []
    for model, (times, classes) in found.items():
        for layer in range(len(times)):
            rows = by_time(times[layer], labels)
            first.append([model, layer, *map(cell, rows[:3]), f"{rows[0]['null']:.4f}", max(r["p"] for r in rows[:3])])
            asked = classes[layer]  # (pictures, 1, told, experts)
            said, seen = told(asked, within(asked)), told(*across(asked[:, 0], labels))
            second.append(
                [model, layer, cell(rows[3], 4), cell(said, 4), cell(seen, 4), max(r["p"] for r in (rows[3], said, seen))]
            )
    one = table(
        ["", "layer", "timestep, told and shown", "told, given shown", "shown, given told", "mean of null", "largest p"], first
    )
    two = table(
        ["", "layer", "class, given timestep (none told)", "class told, t = 500", "class seen, given told", "largest p"], second
    )
    return f"{one}\n\n{two}"


def picture(times: np.ndarray) -> Any:
    """Share of assignments by expert and timestep, a panel for each layer."""
    rows = [
        {"layer": f"layer {layer}", "timestep": time, "expert": e, "share": value}
        for layer, counts in enumerate(times)
        for i, time in enumerate(TIMES)
        for e, value in enumerate(counts[:, i, i].sum(0) / counts[:, i, i].sum())
    ]
    base = alt.Chart(pd.DataFrame(rows)).mark_rect().encode(
        x=alt.X("timestep:O", title="timestep (1000: noise)"), y=alt.Y("expert:O"),
        color=alt.Color("share:Q", title="share of load", scale=alt.Scale(domainMin=0)),
        column=alt.Column("layer:N", title=None),
    )  # fmt: skip
    return base.properties(width=130, height=170)


def main() -> None:
    """Traces, counts, and fills the report."""
    torch.set_num_threads(1)
    pictures, labels = chosen()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in both(NAME, SEED).items():
            kinds = ("timestep", "class")
            found[name] = tuple(trace(model, Path(folder) / f"{name}-{k}.duckdb", pictures, k) for k in kinds)
    draw("dit-moe", picture(found["trained"][0]))
    fill(NAME, report(found, labels))


if __name__ == "__main__":
    main()
