"""Causal tracing of expert updates: whose update, taken from the clean prompt, brings the right token back?

What `moescope experiment tracing MODEL STORE -p cases=FILE` measured (expert-aware causal tracing, arXiv 2606.03780); a unit
here is a case, that is a pair of prompts.
* rescue by the layer, by an expert's update (logits): the contrast between right and wrong token with the clean update patched
  into the corrupted run, less that without; by layer, and by position where all were patched.
* specificity: an expert's rescue less the mean of the other experts that ran there in the clean prompt. Any clean update
  helps a little; only an expert whose specificity is above 0 is more than one of many.
Null: the signs of the cases flipped, two-sided; q is over all rows of the answer. Chance 0. Intervals draw cases.
"""

import pandas as pd

from ..store import Store
from ._shared.answer import Answer, Chart, few_units, gather
from ._shared.chart_forms import heatmap, layers
from ._shared.experiments import asked, sql_of
from ._shared.scope import scope
from ._shared.verdicts.verdict import analyze, signed

LAYER, EXPERT = "rescue by the layer (logits)", "rescue by an expert's update (logits)"
SPECIFIC = "specificity of an expert's update (logits)"
LIMITS = "it does not show what happens where other words are corrupted"


def run(store: Store, run: int | None = None) -> Answer:
    """Of the newest run or `run`."""
    here = scope(store, run)
    found, extra = asked(store, here.run, "tracing", "traced updates")
    frame = gather([found], family=())
    counted = extra.iloc[0]
    notes = [*here.notes, f"{counted['cases']} of {counted['of']} cases had the margin and the drop that were asked for."]
    if counted.get("longer"):
        notes.append(f"{counted['longer']} more were left out: their right or wrong word is not one token.")
    notes += few_units(frame)
    sql = {"figures": sql_of(here.run, "tracing")}
    said = signed(_reading(frame), frame[frame["name"] == LAYER], frame, LIMITS, analyze("structure"), "logits")
    return Answer(
        "tracing",
        "Causal tracing",
        said,
        here.run,
        {"figures": frame},
        sql,
        notes,
        charts,
    )


def _reading(frame: pd.DataFrame) -> str:
    layer = frame[frame["name"] == LAYER]
    best = layer.loc[layer["value"].idxmax()]
    span = "" if pd.isna(best["ci_low"]) else f" [{best['ci_low']:+.2f}, {best['ci_high']:+.2f}]"
    where = f"layer {best['layer']}" + (f", {best['subset']}" if best["subset"] else "")
    said = f"The clean update of {where} rescues most: {best['value']:+.2f} logits{span} over {best['units']} cases"
    alone = frame[(frame["name"] == SPECIFIC) & (frame["q"] <= 0.05) & (frame["value"] > 0)]
    if alone.empty:
        return f"{said}; no expert's update does more than the other experts' at its place (q over all figures here)."
    top = alone.loc[alone["value"].idxmax()]
    return (
        f"{said}; of single experts {top['expert']} of layer {top['layer']} stands out: {top['value']:+.2f} logits beyond the "
        f"other experts that ran there ({len(alone)} experts at q ≤ 0.05 over all figures here)."
    )


def charts(answer: Answer) -> dict[str, Chart]:
    """Rescue by layer (and position), by expert, and what is specific to an expert."""
    sql, drawn = answer.sql["figures"], {}
    frame = answer.figures(LAYER)
    drawn["rescue by layer"] = layers(
        frame.assign(subset=frame["subset"].replace("", "last")), "Rescue (logits)", sql, "subset"
    )
    for name, title in ((EXPERT, "rescue by layer and expert"), (SPECIFIC, "specificity by layer and expert")):
        if len(last := answer.figures(name, subset="")):
            drawn[title] = heatmap(last, name, sql)
    return drawn
