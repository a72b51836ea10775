"""Health of the routers over the steps of a training run."""

from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.parts import figures, layer_maps, panels, pickers
from moescope.app.queries import store_access, training_end
from moescope.app.wording import share

LOSS = """
select step, phase, avg(loss) as loss, count(*) as forwards from forwards
where run = ? and (phase in ('train', 'eval') or loss is not null) group by step, phase order by phase desc, step"""
PARTS = """
select part, count(distinct step) as steps from (select coalesce(evaluation, 'train') as part, step from training where run = ?)
group by part order by part <> 'train', part"""
HEALTH = """
select t.step, coalesce(r.stack, 'layer') || ' ' || r.layer as layer, t.load_entropy, t.max_violation, t.dropped_share, t.dead,
       t.z_loss, t.balance_switch, t.routing_entropy
from training t join routers r using (router) where t.run = ? and coalesce(t.evaluation, 'train') = ?
order by t.step, r.stack, r.layer"""
CURVES = {
    "load_entropy": ("Load entropy, of its maximum", 1.0, "even load"),
    "dead": ("Dead experts, of a step", None, ""),
    "max_violation": ("Overload of the busiest expert (MaxVio)", 0.0, "even load"),
    "balance_switch": ("Balancing loss", 1.0, "even load"),
    "z_loss": ("z-loss", None, ""),
    "dropped_share": ("Dropped for want of capacity, of what was asked", None, ""),
    "routing_entropy": ("Entropy of a decision, nats", None, ""),
}
SMOOTH = (1, 5, 20, 50)  # steps over which curves are averaged
MOST = 200  # steps on a curve: every n-th is shown beyond that


def show(run: dict[str, Any]) -> None:
    """Loss and health by step, training and each evaluation apart; nothing where the run is no training."""
    loss, parts = store_access.frame(LOSS, run["run"]), store_access.frame(PARTS, run["run"])
    shown = [part for part, steps in zip(parts["part"], parts["steps"], strict=True) if steps > 1 or len(parts) > 1]
    if len(loss) < 2 and not shown:
        return
    panels.section(
        "Over training",
        "How even the load was, how sure the routers, and what the auxiliary losses said, by step: a curve that leaves its "
        "dashed line, and experts that go dead, are what collapse looks like.",
    )
    with st.columns([1, 4])[0]:
        words = {n: f"{n} recorded steps" if n > 1 else "nothing" for n in SMOOTH}
        over = url_state.choose("Smooth over", "smooth", list(SMOOTH), words.__getitem__) or 1
    if len(loss) > 1 and loss["loss"].notna().any():
        known = smoothed(loss.dropna(subset=["loss"]), ["loss"], "phase", over)
        chart = charts.lines(known, "step", "loss", "phase", title="Loss", subtitle=averaged(over), zero=True)
        figures.figure(chart, LOSS, [run["run"]], name="loss")
    for place, part in zip(
        st.tabs([_titled(part) for part in shown]) if len(shown) > 1 else [st.container()], shown, strict=False
    ):
        with place:
            _health(run, part, over)
    if "train" in shown:
        by_step(run)


def smoothed(frame: pd.DataFrame, columns: list[str], by: str, over: int) -> pd.DataFrame:
    """Means of each column over the last `over` recorded steps, of each `by` for itself."""
    if over < 2:
        return frame
    means = {c: frame.groupby(by, sort=False)[c].transform(lambda v: v.rolling(over, min_periods=1).mean()) for c in columns}
    return frame.assign(**means)


def averaged(over: int) -> str | None:
    """What the subtitle of a smoothed curve says."""
    return f"mean of the last {over} recorded steps" if over > 1 else None


@panels.part
def by_step(run: dict[str, Any]) -> None:
    """Step × expert of one layer."""
    with st.columns([1, 3])[0]:
        layer = pickers.choose_layer(run["run"])
    if layer is None:
        return
    known = training_end.steps(run["run"])
    frame, sql, params = training_end.by_step(layer.router, training_end.kept(known, MOST), layer.experts)
    if frame.empty:
        panels.empty("No decision was kept", "This run holds measures of its steps alone: which expert had what is not known.")
        return
    figures.heat(
        frame, "step", "expert", "share", f"Load by step, {layer.label}", sql, params, name="load-by-step",
        chance=layer.even, limits=(0.0, 2 * layer.even), tooltip=["assignments"], format=".0%",
        down=list(reversed(range(layer.experts))),
        clicked=lambda _, expert: url_state.request_page("experts", run=run["run"], layer=layer.label, expert=expert),
        subtitle=layer_maps.EVEN.format(share(layer.even)),
    )  # fmt: skip


def _titled(part: str) -> str:
    return "Training" if part == "train" else "Forwards" if part == "forward" else f"Evaluation: {part}"


def _health(run: dict[str, Any], part: str, over: int) -> None:
    """The curves of training, or of one evaluation."""
    health = store_access.frame(HEALTH, run["run"], part)
    health = smoothed(health, [c for c in CURVES if health[c].notna().any()], "layer", over)
    if health["step"].nunique() > MOST:
        every = sorted(health["step"].unique())
        steps = training_end.kept(every, MOST)
        health = health[health["step"].isin(steps)]
        st.caption(f"{len(steps)} of {len(every)} steps are drawn, evenly, the last among them.")
    shown = [c for c in CURVES if health[c].notna().any() and not (c == "dropped_share" and not health[c].fillna(0).any())]
    for start in range(0, len(shown), 2):
        for place, name in zip(st.columns(2), shown[start : start + 2], strict=False):
            with place:
                _curve(run, part, health, name, over)


def _curve(run: dict[str, Any], part: str, health: Any, column: str, over: int) -> None:
    title, level, label = CURVES[column]
    known = health.dropna(subset=[column])
    title = title if part == "train" else f"{title} ({part})"
    chart = charts.lines(
        known, "step", column, "layer", chance=level, chance_label=label, title=title, subtitle=averaged(over), zero=True,
        tooltip=["dead"],
    )  # fmt: skip
    name = f"training-{column}" if part == "train" else f"{part}-{column}"
    figures.figure(chart, HEALTH, [run["run"], part], name=name)
