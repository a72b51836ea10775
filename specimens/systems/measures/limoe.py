"""Are there modality experts without being told? `python -m specimens.systems.measures.limoe [PLAIN]`.

The 400 held-out pictures with sentences that name their class, in batches of 20, as in training. PLAIN is the folder of the
twin that was trained without the entropy losses (`python -m specimens.systems.limoe --entropy 0 --folder PLAIN`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch

import moescope
import moescope.statistics as st
from specimens.systems.limoe import BUILT, NAME, SEED, evaluation
from specimens.systems.measures.shared import DRAWS, also, both, cell, draw, fill, table, told

BATCH = 20
SQL = """select r.layer, t.sequence, t.position, t.unit, a.expert, a.dropped, l.logits from assignments a
join tokens t using (token) join routers r using (router) join logits l using (forward, router, token)"""


def traced(model: Any, store: Path) -> pd.DataFrame:
    """One row a token and layer: its modality, expert, whether it was dropped, and its probabilities."""
    given, _ = evaluation()
    with moescope.Tracer(model, store, logits=1.0), torch.no_grad():
        for start in range(0, len(given["input_ids"]), BATCH):
            model(**{k: v[start : start + BATCH] for k, v in given.items()})
    with moescope.open(store) as found:
        frame = pd.DataFrame(found.rows(SQL), columns=["layer", "pair", "position", "unit", "expert", "dropped", "logits"])
    logits = np.stack(frame.pop("logits").to_list())
    chances = np.exp(logits - logits.max(1, keepdims=True))
    frame["chances"] = list(chances / chances.sum(1, keepdims=True))
    return frame.assign(text=(frame.unit != "image").astype(int))


def counts(frame: pd.DataFrame) -> np.ndarray:
    """(pairs, modalities, experts) tokens."""
    made = np.zeros((frame.pair.max() + 1, 2, BUILT["count"]))
    np.add.at(made, (frame.pair, frame.text, frame.expert), 1)
    return made


def entropies(frame: pd.DataFrame) -> dict[str, str]:
    """Local and global entropy in nats of both modalities, with intervals over pairs."""
    found = {}
    p = np.stack(frame.chances.to_list())
    own = -(p * np.log(np.maximum(p, 1e-12))).sum(1)
    for number, modality in enumerate(("image", "text")):
        some = (frame.text == number).to_numpy()
        sums = np.zeros((frame.pair.max() + 1, p.shape[1] + 2))
        np.add.at(sums, frame.pair[some], np.column_stack([p[some], own[some], np.ones(some.sum())]))
        for name, statistic in (("local", _local), ("global", _global)):
            value, low, high = st.over_documents(statistic, sums)
            found[f"{name} {modality}"] = cell({"value": value, "low": low, "high": high}, 2)
    return found


def _local(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., -2] / sums[..., -1])


def _global(sums: np.ndarray) -> np.ndarray:
    return np.asarray(st.entropy(sums[..., :-2]) * np.log(2))


def experts(made: np.ndarray) -> list[str]:
    """Which experts are of one modality: nine tenths of their tokens or more; and which are dead."""
    load = made.sum(0)
    share = load[1] / np.maximum(load.sum(0), 1)
    alive = load.sum(0) > 0
    kinds = (alive & (share <= 0.1), alive & (share >= 0.9), alive & (share > 0.1) & (share < 0.9), ~alive)
    return [", ".join(map(str, np.flatnonzero(kind))) or "none" for kind in kinds]


def report(frames: dict[str, pd.DataFrame]) -> str:
    """Two tables."""
    first, second = [], []
    for model, whole in frames.items():
        for layer, frame in whole.groupby("layer"):
            ran = frame[~frame.dropped]
            rows = [told(counts(some)[:, None], shuffled(some)) for some in (frame, ran)]
            dropped = [f"{frame.dropped[frame.text == m].mean():.1%}" for m in (0, 1)]
            nulls = [f"{max(r[what] for r in rows):.{digits}f}" for what, digits in (("null", 4), ("p", 3))]
            first.append([model, layer, *experts(counts(ran)), *map(cell, rows), *nulls])
            second.append([model, layer, *entropies(frame).values(), *dropped])
    head = ["", "layer", "picture experts", "text experts", "mixed", "dead", "I(chosen; modality)", "I(ran; modality)"]
    head += ["mean of null", "p"]
    more = [
        "",
        "layer",
        "local, picture",
        "global, picture",
        "local, text",
        "global, text",
        "dropped, picture",
        "dropped, text",
    ]
    return f"{table(head, first)}\n\n{table(more, second)}"


def shuffled(frame: pd.DataFrame) -> np.ndarray:
    """(draws, 1, modalities, experts): modalities dealt anew over the tokens of a pair."""
    dealt = st.permuted(frame.text.to_numpy(), DRAWS, within=frame.pair.to_numpy())
    made = np.zeros((len(dealt), 1, 2, BUILT["count"]))
    for draw_, text in zip(made, dealt):
        np.add.at(draw_[0], (text, frame.expert.to_numpy()), 1)
    return made


def picture(frames: dict[str, pd.DataFrame]) -> Any:
    """Tokens of each modality by expert."""
    rows = [
        {"layer": f"{model}, layer {layer}", "expert": e, "modality": ("picture", "text")[m], "share": value}
        for model, whole in frames.items()
        for layer, frame in whole.groupby("layer")
        for m, load in enumerate(counts(frame).sum(0))
        for e, value in enumerate(load / load.sum())
    ]
    base = alt.Chart(pd.DataFrame(rows)).mark_bar().encode(
        x=alt.X("expert:O"), xOffset="modality:N", y=alt.Y("share:Q", title="share of tokens"),
        color=alt.Color("modality:N", title=None), facet=alt.Facet("layer:N", title=None, columns=2, sort=None),
    )  # fmt: skip
    return base.properties(width=230, height=110)


def main() -> None:
    """Traces, counts, and fills the report."""
    torch.set_num_threads(1)
    models = both(NAME, SEED)
    if len(sys.argv) > 1:
        models["without entropy losses"] = also(NAME, sys.argv[1])[0]
    with tempfile.TemporaryDirectory() as folder:
        frames = {name: traced(model, Path(folder) / f"{n}.duckdb") for n, (name, model) in enumerate(models.items())}
    draw("limoe", picture(frames))
    fill(NAME, report(frames))


if __name__ == "__main__":
    main()
