"""Panels of the Ablation page: effects beside controls, by group, and against use."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.parts import figures, panels, pickers
from moescope.app.queries import effects
from moescope.app.wording import share, some

AWAY = "taken away"
MOST = 40  # bars, and columns or lines of a heat map
MORE = ["q", "load", "per_load", "kl", "rerouted", "n", "units"]
USES = {"load": "share of assignments", "gate_mass": "share of gate mass", "mean_weight": "mean weight"}
CONTROLS = {
    "none": "against the whole model",
    "router": "beyond the router's other experts, and other groups",
    "load": "beyond experts of equal load",
    "random": "beyond random experts",
}
Row = dict[str, Any]


def most(frame: pd.DataFrame, by: str = "delta_nll") -> pd.DataFrame:
    """The sets with the largest effects, in the order of the frame."""
    size = frame.assign(size=frame[by].abs()).groupby("name")["size"].max()
    return frame[frame["name"].isin(size.nlargest(MOST).index)]


def overall(frame: pd.DataFrame, params: list[Any]) -> None:
    """What taking each set away does to all tokens, beside its controls."""
    panels.section(
        "Effect of each expert",
        "Change of the loss in nats per token when it is taken away; above 0, the model needed it. 95 % over documents.",
    )
    own = frame[frame["control"] == "none"]
    panels.reading(said(own, frame[frame["control"] == "load"]))
    left, right = st.columns([1.6, 1])
    both = effects.beside(most(frame)).rename(columns={"name": AWAY, "what": "without"})
    with left:
        chart = charts.bars(
            both, AWAY, "delta_nll", "ci_low", "ci_high", chance=0.0, color="without", chance_label="no effect",
            sort="ascending", title="Beside experts of equal load", subtitle="change of the loss, nats per token", tooltip=MORE,
        )  # fmt: skip
        figures.figure(chart, effects.ROWS, params, name="effects")
    beyond = most(frame[frame["control"] == "load"]).rename(columns={"name": AWAY})
    with right:
        if beyond.empty:
            panels.empty("No control of equal load", "The set takes all the experts of its layer, or nearly: nothing is left.")
            return
        chart = charts.bars(
            beyond, AWAY, "delta_nll", "ci_low", "ci_high", chance=0.0, chance_label="as its load says", sort="ascending",
            title="Beyond experts of equal load", subtitle="difference of the two, nats per token", tooltip=MORE,
        )  # fmt: skip
        figures.figure(chart, effects.ROWS, params, name="beyond")
    if frame["name"].nunique() > MOST:
        st.caption(f"The {MOST} largest effects of {frame['name'].nunique()}; choose a layer to see all of its experts.")


def between(low: float, high: float, digits: int) -> str:
    """An interval with a space before it, or nothing where documents were too few for one."""
    return "" if pd.isna(low) or pd.isna(high) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"


def said(own: pd.DataFrame, beyond: pd.DataFrame) -> str:
    """The bars in a sentence."""
    if own.empty:
        return "No effect against the whole model is stored."
    known = own.dropna(subset=["delta_nll"])
    if known.empty:
        return "No effect against the whole model could be measured."
    top, sure = known.loc[known["delta_nll"].idxmax()], int((own["q"] < 0.05).sum())
    out = int((beyond["q"] < 0.05).sum())
    most = "the model misses" if sure else "none does surely; it misses"
    load = "" if pd.isna(top["load"]) else f", with {share(top['load'])} of the load"
    return (
        f"Of {some(len(own), 'set')} of experts {sure} {'changes' if sure == 1 else 'change'} the loss (q < 0.05), {out} more "
        f"or less than experts of equal load do; {most} {effects.spoken(top)} most: {top['delta_nll']:+.4f}"
        f"{between(top['ci_low'], top['ci_high'], 4)} nats{load}."
    )


@panels.part
def by_group(run: Row, mode: str, at: str, router: int | None, kinds: list[str]) -> None:
    """Expert × group, in colour."""
    panels.section("By group of tokens", "On which domains, classes or words the model misses which expert.")
    if not kinds:
        panels.empty(
            "No groups were measured",
            f"Measure them: `moescope ablate {run['model_name']} --store STORE --experts LAYER --sweep --by domain,upos`",
        )
        return
    one, two = st.columns(2)
    with one:
        kind = url_state.choose("Groups by", "kind", kinds) or kinds[0]
    with two:
        control = url_state.choose("Effect", "control", list(CONTROLS), CONTROLS.__getitem__) or "none"
    frame, params = effects.rows(run["run"], mode, at, kind, router)
    frame = frame[frame["control"] == control]
    large = frame.groupby("group")["n"].max().nlargest(MOST).index
    shown = most(frame[frame["group"].isin(large)]).rename(columns={"name": AWAY})
    if shown.empty:
        panels.empty("Nothing to compare with there", "Choose the effect against the whole model, or all layers.")
        return
    figures.heat(
        shown, AWAY, "group", "delta_nll", f"Effect by {kind}, {CONTROLS[control]}", effects.ROWS, params,
        name=f"by-{kind}-{control}", centre=0.0, clicked=partial(_open, run, shown),
        subtitle="change of the loss, nats per token; orange: the model misses the expert there",
        tooltip=["ci_low", "ci_high", *MORE],
    )  # fmt: skip
    st.caption("Hover for the interval: a colour alone is no finding.")


def _open(run: Row, shown: pd.DataFrame, name: str, _: str) -> None:
    found = shown[shown[AWAY] == name]
    if found.empty or pd.isna(found["expert"].iloc[0]):
        return
    label = pickers.labels(run["run"]).get(int(found["router"].iloc[0]))
    url_state.request_page("experts", run=run["run"], layer=label, expert=int(found["expert"].iloc[0]))


@panels.part
def against(run: Row, frame: pd.DataFrame, params: list[Any]) -> None:
    """Use against effect, one point per expert."""
    panels.section("Importance against effect", "Does the model miss most what it uses most? A trace alone knows only the use.")
    known = effects.against_use(run["run"], frame)
    if len(known) < 5:
        panels.empty(
            "Too few single experts were ablated",
            f"Take each of a layer alone: `moescope ablate {run['model_name']} --store STORE --experts LAYER --sweep`",
        )
        return
    use = url_state.choose("Use", "use", list(USES), USES.__getitem__) or "load"
    known = known.dropna(subset=[use]).assign(layer=known["layer"].astype(str))
    rho, low, high = effects.rank_correlation(known[use], known["delta_nll"])
    words = (
        f"{some(len(known), 'expert')}; too few, or all alike: no rank correlation"
        if pd.isna(rho)
        else f"rank correlation {rho:+.2f}{between(low, high, 2)}, 95 % bootstrap over {some(len(known), 'expert')}; chance: 0"
    )
    chart = charts.scatter(
        known, use, "delta_nll", "layer", title=f"{USES[use].capitalize()} against effect", subtitle=words,
        tooltip=["name", "ci_low", "ci_high", *MORE],
    )  # fmt: skip
    figures.figure(chart, effects.ROWS, params, name=f"against-{use}")
