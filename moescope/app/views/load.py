"""Load and entropy: who works, by domain, phase and position; what another capacity would drop; training curves."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.parts import answers, capacity, layer_maps, leaves, panels, pickers, training
from moescope.app.queries import balance, sampling, store_access

PAGE = {"title": "Load and entropy", "icon": ":material/grid_on:", "order": 4, "group": "Routing"}
VALUES = {"share": "share of assignments", "first": "share of first choices", "dropped": "share dropped", "mean": "mean weight"}
ALL = """
select stack, layer, router, expert, assignments, share, first / nullif(sum(first) over (partition by router), 0) as first,
       dropped / nullif(assignments + dropped, 0) as dropped, weight / nullif(assignments, 0) as mean
from expert_load where run = ? order by stack, layer, expert"""
BY_LABEL = """
select stack, layer, router, expert, assignments, share, overall, share - overall as difference
from label_load where run = ? and kind = ? and label = ? order by stack, layer, expert"""
SPLITS = {
    "everything": "",
    "prompts": "f.phase in ('prefill', 'forward') and not t.generated",
    "generated tokens": "(f.phase = 'decode' or t.generated)",
    "first token": "t.position = 0",
    "positions 1–15": "t.position between 1 and 15",
    "positions 16–": "t.position >= 16",
}
SPLIT = """
with n as (
  select a.router, a.expert, count(*) as assignments
  from assignments a join forwards f using (forward) join tokens t using (token)
  where a.run = ? and not a.dropped and {where}{few}{near} group by a.router, a.expert)
select r.stack, r.layer, n.*, assignments / sum(assignments) over (partition by router) as share
from n join routers r using (router) order by stack, layer, expert"""
Row = dict[str, Any]


def choose(run: Row) -> tuple[pd.DataFrame, str, list[Any], str]:
    """What the heat map shows: frame, its SQL and parameters, the column."""
    one, two, three = st.columns(3)
    with one:
        value = url_state.choose("Value", "value", list(VALUES), VALUES.__getitem__) or "share"
    with two:
        label = pickers.choose_label(run["run"], "Of which domain or class")
    with three:
        split = url_state.choose("Of which tokens", "split", list(SPLITS)) or "everything"
    if label:
        difference = url_state.toggle("Difference from everything", "difference")
        return (
            store_access.frame(BY_LABEL, run["run"], *label),
            BY_LABEL,
            [run["run"], *label],
            "difference" if difference else "share",
        )
    if split != "everything":
        each = sum(layer.top_k or 1 for layer in pickers.layers(run["run"]))
        few, kept = sampling.forward_filter_sql(run, sampling.EVERY, each)
        sampling.sample_note(kept)
        sql = SPLIT.format(where=SPLITS[split], few=few, near=sampling.token_filter_sql(run, few))
        return store_access.frame(sql, run["run"]), sql, [run["run"]], "share"
    frame = store_access.frame(ALL, run["run"])
    return balance.shares(run, frame) if value == "share" else frame, ALL, [run["run"]], value


@panels.part
def heat(run: Row) -> None:
    """Layer × expert; a click opens the expert."""
    frame, sql, params, value = choose(run)
    if frame.empty or not frame["assignments"].sum():
        panels.empty(
            "Nothing was routed there",
            "Choose everything, or trace data that has such tokens (`--generate N` for generated ones).",
        )
        return
    panels.small_count_note(frame["assignments"].sum() / max(frame["router"].nunique(), 1))
    layer_maps.show(
        run["run"], frame, value, VALUES.get(value, value).capitalize(), sql, params, name=f"load-{value}",
        even=value in ("share", "first"), centre=0 if value == "difference" else None,
        tooltip=["assignments", "low", "high"], format=".3~g" if value == "mean" else ".0%",
    )  # fmt: skip


def by_layer(run: Row) -> None:
    """Balance and certainty along the layers."""
    panels.section(
        "Along the layers",
        "Load entropy: how evenly the layer uses its experts. Routing entropy: how undecided one decision is.",
    )
    frame = balance.figures(run)
    if frame.empty:
        return
    frame = pickers.grouped(run["run"], frame).assign(
        low=(frame["routing_entropy"] - frame["sd"]).clip(lower=0), high=frame["routing_entropy"] + frame["sd"]
    )
    counted = balance.counted(run)
    words = "band: 95 % over documents" if counted else "its interval over documents: below, on a click"
    left, right = st.columns(2)
    with left:
        line(
            run, frame, "load_entropy", counted, title="Load entropy, of its maximum", subtitle=words, chance=1.0,
            chance_label="even load", tooltip=["max_violation", "dead", "dropped_share"],
        )  # fmt: skip
    with right:
        line(
            run, frame, "routing_entropy", ("low", "high"), title="Entropy of a decision, of its maximum",
            subtitle="band: one standard deviation over decisions", chance=1.0, chance_label="uniform",
        )  # fmt: skip
    left, right = st.columns(2)
    with left:
        said = "; ".join(filter(None, ("(largest load − mean) / mean", words)))
        title = "Overload of the busiest expert (MaxVio)"
        line(run, frame, "max_violation", counted, title=title, subtitle=said, chance=0.0, chance_label="even load")
    with right:
        dropped(run, frame)


def line(run: Row, frame: pd.DataFrame, y: str, span: bool | tuple[str, str], **said: Any) -> None:
    """A figure along the layers. `span`: the columns of its band, or whether it has its own."""
    low, high = span if isinstance(span, tuple) else (f"{y}_low", f"{y}_high") if span else (None, None)
    chart = charts.lines(frame, "layer", y, "stack", low, high, **said)
    panels.figure(chart, balance.BALANCE, [run["run"]], name=y.removesuffix("_share").replace("_", "-"))


def dropped(run: Row, frame: pd.DataFrame) -> None:
    """What found its expert full."""
    if (frame["dropped_share"].fillna(0) > 0).any():
        line(run, frame, "dropped_share", False, title="Dropped for want of capacity", zero=True, format=".1%")
    else:
        panels.empty("Nothing was dropped", "No expert was ever full: the model has no capacity limit, or it was large enough.")


def render() -> None:
    """The page."""
    panels.head("Load and entropy", "Which experts work, on what, how evenly; and how sure the routers are.")
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    answers.verdict("load", run)
    heat(run)
    leaves.show(run)
    by_layer(run)
    panels.guarded(training.show, run)
    capacity.show(run)
    answers.ask("load", run, wait=True)


render()
