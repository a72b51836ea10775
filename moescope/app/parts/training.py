"""Health of the routers over the steps of a training run."""

from typing import Any

import streamlit as st

from moescope import charts
from moescope.app.parts import panels
from moescope.app.queries import store_access

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
    "max_violation": ("Overload of the busiest expert (MaxVio)", 0.0, "even load"),
    "balance_switch": ("Balancing loss", 1.0, "even load"),
    "z_loss": ("z-loss", None, ""),
    "dropped_share": ("Dropped for want of capacity", None, ""),
    "routing_entropy": ("Entropy of a decision, nats", None, ""),
}
MOST = 200  # steps on a curve: every n-th is shown beyond that


def show(run: dict[str, Any]) -> None:
    """Loss and health by step, training and each evaluation apart; nothing where the run is no training."""
    loss, parts = store_access.frame(LOSS, run["run"]), store_access.frame(PARTS, run["run"])
    shown = [part for part, steps in zip(parts["part"], parts["steps"], strict=True) if steps > 1 or len(parts) > 1]
    if len(loss) < 2 and not shown:
        return
    panels.section("Over training", "How even the load was, how sure the routers, and what the auxiliary losses said, by step.")
    if len(loss) > 1 and loss["loss"].notna().any():
        chart = charts.lines(loss.dropna(subset=["loss"]), "step", "loss", "phase", title="Loss")
        panels.figure(chart, LOSS, [run["run"]], name="loss")
    for place, part in zip(
        st.tabs([_titled(part) for part in shown]) if len(shown) > 1 else [st.container()], shown, strict=False
    ):
        with place:
            _health(run, part)


def _titled(part: str) -> str:
    return "Training" if part == "train" else "Forwards" if part == "forward" else f"Evaluation: {part}"


def _health(run: dict[str, Any], part: str) -> None:
    """The curves of training, or of one evaluation."""
    health = store_access.frame(HEALTH, run["run"], part)
    if health["step"].nunique() > MOST:
        steps = sorted(health["step"].unique())
        every = -(-len(steps) // MOST)
        health = health[health["step"].isin(steps[::every])]
        st.caption(f"One in {every} of {len(steps)} steps is drawn.")
    shown = [c for c in CURVES if health[c].notna().any() and not (c == "dropped_share" and not health[c].fillna(0).any())]
    for start in range(0, len(shown), 2):
        for place, name in zip(st.columns(2), shown[start : start + 2], strict=False):
            with place:
                _curve(run, part, health, name)


def _curve(run: dict[str, Any], part: str, health: Any, column: str) -> None:
    title, level, label = CURVES[column]
    known = health.dropna(subset=[column])
    title = title if part == "train" else f"{title} ({part})"
    chart = charts.lines(known, "step", column, "layer", chance=level, chance_label=label, title=title, tooltip=["dead"])
    name = f"training-{column}" if part == "train" else f"{part}-{column}"
    panels.figure(chart, HEALTH, [run["run"], part], name=name)
