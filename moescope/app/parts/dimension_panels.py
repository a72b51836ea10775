"""Panels of the Dimensionality page: participation ratios by layer, by expert and by cycle, beside their controls."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.parts import figures, layer_maps, panels, pickers
from moescope.app.parts.ablation.effect_panels import between
from moescope.app.queries import effects, store_access
from moescope.app.wording import figure

ROUTING = ("router logits", "routing weights")
TIPS = ["naive", "null_mean", "p", "q", "n", "units"]
Row = dict[str, Any]


def show(run: Row, answer: Any) -> None:
    """All that the answer holds."""
    frame = ratios(answer)
    cards(answer, frame)
    by_layer(run, answer, frame[frame["layer"].notna() & frame["expert"].isna()].astype({"layer": int}))
    by_cycle(answer, frame)
    by_expert(run, answer, frame[frame["expert"].notna()].astype({"layer": int, "expert": int, "router": int}))


def ratios(answer: Any) -> pd.DataFrame:
    """Unbiased participation ratios, each with the naive one."""
    keys = ["stack", "layer", "router", "expert", "subset"]
    naive = answer.figures("participation_ratio", estimator="naive")[[*keys, "value"]].rename(columns={"value": "naive"})
    frame = answer.figures("participation_ratio", estimator="unbiased").merge(naive, on=keys, how="left")
    return frame.astype({"n": "float", "units": "float"}).rename(columns={"value": "dimensions"})


def cards(answer: Any, frame: pd.DataFrame) -> None:
    """What stands for a whole stack: the routing matrix, and the hierarchy from early to late layers."""
    items = []
    for row in frame[frame["subset"].str.startswith("routing matrix")].itertuples():
        apart = figure(row.null_mean, ".1f")
        words = f"dimensions of {figure(row.chance, '.0f')} that it could use; layers shuffled apart: {apart}"
        items.append((f"Routing of the {row.stack}{rest(row.subset)}", figure(row.dimensions, ".1f"), words, ""))
    for row in answer.figures("hierarchy_index").itertuples():
        span = "" if pd.isna(row.ci_low) else f"[{row.ci_low:.2f}, {row.ci_high:.2f}]; "
        name = f"{row.subset.partition(',')[0].capitalize()}, late ÷ early{rest(row.subset)}"
        items.append((name, figure(row.value, ".2f"), f"{span}1 is flat", ""))
    for row in answer.figures("slow_over_fast").itertuples():
        span = "" if pd.isna(row.ci_low) else f"[{row.ci_low:.2f}, {row.ci_high:.2f}]; "
        items.append(
            (f"{row.subset.replace(' over ', ' ÷ ')}", figure(row.value, ".2f"), f"{span}1: the slow as many as the fast", "")
        )
    if items:
        panels.cards(items)


def rest(subset: str) -> str:
    """Which run a control's figure is of."""
    return ", control" if ", control run" in subset else ""


def whose(run: Row, subset: str) -> int:
    """The run that a figure is of: a control's routers have numbers of their own."""
    _, control, number = subset.rpartition(", control run ")
    return int(number) if control else int(run["run"])


def by_layer(run: Row, answer: Any, frame: pd.DataFrame) -> None:
    """States and routing along the layers, each beside its control."""
    if frame.empty:
        return
    panels.section("By layer", "The unbiased ratio with its 95 % interval over documents. Compare streams of equal width only.")
    of = [whose(run, subset) for subset in frame["subset"]]
    frame = pd.concat([pickers.grouped(number, some) for number, some in frame.groupby(of, sort=False)])
    routing = frame["subset"].str.startswith(ROUTING)
    left, right = st.columns(2)
    with left:
        _lines(answer, frame[routing], "Routing", "routing")
    with right:
        if routing.all():
            panels.empty(
                "No states were summed up",
                "Trace with them: `moescope trace MODEL --data DATA --store STORE --measure dimensionality`",
            )
        else:
            _lines(answer, frame[~routing], "States between the layers", "states")


def _lines(answer: Any, frame: pd.DataFrame, title: str, name: str) -> None:
    if frame.empty:
        panels.empty(
            "Nothing of the routing was kept", "Trace without `--experts-only`; with `--logits 1` for router logits too."
        )
        return
    many = frame["stack"].nunique() > 1
    frame = frame.assign(stream=frame["stack"] + ", " + frame["subset"] if many else frame["subset"])
    null = "null_mean" if frame["null_mean"].notna().any() else None
    chart = charts.lines(
        frame, "layer", "dimensions", "stream", "ci_low", "ci_high", chance=null, title=title, zero=True, tooltip=TIPS,
        subtitle="dimensions in use; band: 95 % interval", chance_label="experts shuffled apart",
    )  # fmt: skip
    figures.figure(chart, answer.sql["figures"], name=f"dimensions-{name}")


def by_cycle(answer: Any, frame: pd.DataFrame) -> None:
    """States of modules that run several times in one pass."""
    from moescope.analyses import dimensionality  # the answer has loaded it

    frame = dimensionality.by_cycle(frame)
    if frame.empty:
        return
    panels.section("By cycle", "States of a module that runs again and again in one pass, each time for itself.")
    chart = charts.lines(
        frame, "cycle", "dimensions", "module", "ci_low", "ci_high", title="States by cycle", zero=True, tooltip=TIPS,
        subtitle="dimensions in use; band: 95 % interval",
    )  # fmt: skip
    figures.figure(chart, answer.sql["figures"], name="dimensions-cycle")


def by_expert(run: Row, answer: Any, frame: pd.DataFrame) -> None:
    """What every expert receives and returns, and whether that only says how often it ran."""
    if frame.empty:
        return
    panels.section(
        "By expert", "Dimensions of what an expert receives or returns, from as many states of each; hover for the interval."
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        streams = list(dict.fromkeys(frame["subset"]))
        stream = url_state.choose("States", "states", streams, str.capitalize) or streams[0]
        some = frame[frame["subset"] == stream]
        sql = answer.sql["figures"]
        layer_maps.show(
            whose(run, stream), some, "dimensions", f"Dimensions of {stream}", sql, [], name=f"dimensions-{stream}",
            format=".3~g", tooltip=["ci_low", "ci_high", "naive", "n", "units"],
        )  # fmt: skip
    with right:
        used = some.merge(store_access.frame(effects.USE, whose(run, stream)), on=["router", "expert"])
        rho, low, high = effects.rank_correlation(used["share"], used["dimensions"])
        chart = charts.scatter(
            used.rename(columns={"share": "share of load"}), "share of load", "dimensions",
            "layer" if used["layer"].nunique() > 1 else None, "Is it only the load?",
            subtitle="" if rho != rho else f"rank correlation {rho:+.2f}{between(low, high, 2)} over experts; chance: 0",
            tooltip=["expert", "ci_low", "ci_high", "naive", "n"],
        )  # fmt: skip
        figures.figure(chart.properties(height=260), sql, name="dimensions-load")
