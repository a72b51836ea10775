"""What an analysis claims of a world in which nothing is to be claimed, and whether its intervals hold the truth."""

from typing import Any

import numpy as np
import pandas as pd

from moescope import analyses
from moescope.errors import AnalysisError
from moescope.store import Store

LEVEL = 0.05
CONTRAST = "for contrast"
EVENLY = (
    "equal",
    "short",
    "many",
    "most",
    "short, leaning",
    "own words",
    "told",
    "told, short, leaning",
)  # experts are as good as each other
SHARES = (
    "share of load by label", "share of load by condition", "share of load by modality", "share of load", "frequency",
    "gate mass",
)  # fmt: skip
TRUE: dict[str, tuple[str, ...]] = {  # what is so in a world, by words of the figure, its subset or frame
    "tilt": ("load", "CV", "Gini", "MaxVio", "experts", "importance"),
    "tokens": ("input id", "in the next layer", "distinct paths", "path entropy", "co-activation", "pairs"),
    "topics": ("input id", "in the next layer", "distinct paths", "path entropy", "co-activation", "pairs"),
}


def claims(answer: analyses.Answer, world: str) -> list[str]:
    """Figures and rows of other frames with q <= .05 that are not true in the world and not marked as a contrast."""
    found = []
    for name, frame in answer.frames.items():
        if "q" not in frame or not len(frame):
            continue
        some = frame[frame["q"].astype(float) <= LEVEL]
        words = (some["name"] + " " + some["subset"].astype(str)) if "name" in some else pd.Series(name, index=some.index)
        if "attribute" in some:
            words = words + " " + some["attribute"]
        if "null" in some:
            words = words[~some["null"].astype(str).str.contains(CONTRAST)]
        found += [w for w in words if not any(true in w for true in TRUE.get(world, ()))]
    return found


def covered(answer: analyses.Answer, world: str, experts: int) -> dict[str, tuple[int, int]]:
    """{figure: (intervals that hold the truth, intervals)} for figures whose truth is known in the world."""
    frame, found = answer.frames["figures"], {}
    frame = frame[frame["ci_low"].notna() & (frame["units"] >= 24)]
    truth = pd.Series(np.nan, index=frame.index)
    if world in EVENLY:
        even = frame["name"].isin(SHARES) & (frame["chance"].isna() | (frame["chance"] < 1))  # not of routers of one expert
        even |= (frame["name"] == "repetition, first choice") & ("leaning" not in world and world != "own words")
        truth[even] = 1 / experts
        truth[frame["name"] == "router saturation"] = frame["chance"]
    truth[frame["name"] == "share skipped"], truth[frame["name"] == "mean depth"] = 0.5, 1.0
    corrected = frame["estimator"].isin(["less null mean", "corrected"]) & ~frame["null"].str.contains(CONTRAST)
    corrected &= ~frame["subset"].astype(str).isin(["input id"]) & ~frame["name"].str.contains("in the next layer")
    truth[corrected] = 0.0
    for name, rows in frame[truth.notna()].groupby("name"):
        inside = (rows["ci_low"] <= truth[rows.index]) & (truth[rows.index] <= rows["ci_high"])
        found[str(name)] = int(inside.sum()), len(rows)
    return found


def ask(store: Store, name: str, **options: Any) -> analyses.Answer | None:
    """The answer, None where the analysis has nothing to say of the world."""
    try:
        return analyses.run(name, store, **options)
    except AnalysisError:
        return None
