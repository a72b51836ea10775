"""Health of the routers over the steps of a training run."""

from typing import Any

import panels
import stored
import streamlit as st

from moescope import charts

LOSS = """
select step, avg(loss) as loss, count(*) as forwards from forwards where run = ? and (phase = 'train' or loss is not null)
group by step order by step"""
HEALTH = """
select t.step, coalesce(r.stack, 'layer') || ' ' || r.layer as layer, t.load_entropy, t.max_violation, t.dropped_share, t.dead,
       t.z_loss, t.balance_switch, t.routing_entropy
from training t join routers r using (router) where t.run = ? order by t.step, r.stack, r.layer"""
CURVES = {
    "load_entropy": ("Load entropy, of its maximum", 1.0, "even load"),
    "max_violation": ("Overload of the busiest expert (MaxVio)", 0.0, "even load"),
    "balance_switch": ("Balancing loss", 1.0, "even load"),
    "z_loss": ("z-loss", None, ""),
    "dropped_share": ("Dropped for want of capacity", None, ""),
    "routing_entropy": ("Entropy of a decision, nats", None, ""),
}
MOST = 200  # steps on a curve: every n-th is shown beyond that


def show(run: dict[str, Any]) -> None:
    """Loss and health by step; nothing where the run is no training."""
    loss, health = stored.frame(LOSS, run["run"]), stored.frame(HEALTH, run["run"])
    if len(loss) < 2 and health["step"].nunique() < 2:
        return
    panels.section("Over training", "How even the load was, how sure the routers, and what the auxiliary losses said, by step.")
    if health["step"].nunique() > MOST:
        steps = sorted(health["step"].unique())
        every = -(-len(steps) // MOST)
        health = health[health["step"].isin(steps[::every])]
        st.caption(f"One in {every} of {len(steps)} steps is drawn.")
    shown = [c for c in CURVES if health[c].notna().any() and not (c == "dropped_share" and not health[c].fillna(0).any())]
    shown = ["loss"] * bool(len(loss) > 1 and loss["loss"].notna().any()) + shown
    for start in range(0, len(shown), 2):
        for place, name in zip(st.columns(2), shown[start : start + 2], strict=False):
            with place:
                _curve(run, health, name) if name != "loss" else _loss(run, loss)


def _curve(run: dict[str, Any], health: Any, column: str) -> None:
    title, level, label = CURVES[column]
    known = health.dropna(subset=[column])
    chart = charts.lines(known, "step", column, "layer", chance=level, chance_label=label, title=title, tooltip=["dead"])
    panels.figure(chart, known, HEALTH, [run["run"]], name=f"training-{column}")


def _loss(run: dict[str, Any], loss: Any) -> None:
    panels.figure(charts.lines(loss, "step", "loss", title="Loss"), loss, LOSS, [run["run"]], name="loss")
