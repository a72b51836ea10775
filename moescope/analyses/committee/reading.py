"""What follows, in a sentence."""

from typing import Any

import pandas as pd

from ...words import percent


def reading(frame: pd.DataFrame, committees: pd.DataFrame, top_p: float, null: str) -> str:
    """Of the committee that stands farthest beyond its null, or that none does; of prompts where no domains are."""
    cover = frame[(frame["name"] == "committee coverage") & (frame["estimator"] == "definition")]
    if cover.empty:
        return _of_phases(frame[frame["name"] == "prompt and continuation"])
    standing, routers = cover[cover["q"] <= 0.05], cover["router"].nunique()
    family = "q over all figures here"
    if standing.empty:
        return (
            f"No committee stands in any of {routers} routers: leading experts take no more of every domain than experts whose "
            f"numbers are shifted in each document (least p {cover['p'].min():.2g}, {family})."
        )
    best = standing.loc[(standing["value"] - standing["null_mean"]).idxmax()]
    found = (
        f"In {standing['router'].nunique()} of {routers} routers a committee stands; in {best['stack']} layer {best['layer']}"
    )
    return f"{found} {_takes(best, committees, null, family)} {_alike(frame, best, top_p)}"


def _takes(best: Any, committees: pd.DataFrame, null: str, family: str) -> str:
    subset = committees["kind"] + ", budget " + committees["budget"].astype(str)
    who = committees[(committees["router"] == best["router"]) & (subset == best["subset"])].iloc[0]
    experts = f"expert {who['experts']} takes" if who["size"] == 1 else f"experts {who['experts']} take"
    span = "" if pd.isna(best["ci_low"]) else f" [{percent(best['ci_low'])}, {percent(best['ci_high'])}]"
    return (
        f"{experts} {percent(best['value'])}{span} of the routing weight, each {who['kind']} counting alike "
        f"({percent(best['chance'])} at even load, {percent(best['null_mean'])} under the null: {null}; "
        f"{best['units']} documents; {family})."
    )


def _alike(frame: pd.DataFrame, best: Any, top_p: float) -> str:
    row = frame[(frame["name"] == "overlap of leading experts") & (frame["router"] == best["router"])].iloc[0]
    return (
        f"Its {row['subset']}s share {percent(row['value'])} of the experts that hold {percent(top_p)} of the weight "
        f"({percent(row['null_mean'])} if all were alike)."
    )


def _of_phases(rows: pd.DataFrame) -> str:
    best = rows.loc[(rows["value"] - rows["null_mean"]).idxmax()]
    return (
        f"{best['estimator']} of a document's prompt and continuation: {best['value']:.2f} at most (layer {best['layer']}; "
        f"{best['null_mean']:.2f} with another document's continuation, q {best['q']:.2g}; {best['units']} documents)."
    )
