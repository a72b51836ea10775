"""What an expert writes: which tokens does its update make likelier, and are they the tokens that come?

What `moescope experiment writes MODEL STORE` measured of the live model; `dictionary` has every expert's entry: the tokens
that its mean update makes most and least likely, and the tokens that it wrote most for.
* peak of the mean update (z): the largest value of an expert's mean update through the unembedding, in standard deviations over
  the vocabulary ("semantic dictionary", arXiv 2604.14434). Null: random directions. A peak like theirs names a token by chance.
* direct attribution to the next token (logits): what the update adds to the logit of the token that really came, over the mean
  of the vocabulary, on the direct path (direct logit attribution, code of arXiv 2604.02178); of an expert and of all experts of
  a router. Null: next tokens of the expert's other tokens in the same document, signs of the documents' gains flipped.
q is over all rows of the answer. Path-level monosemanticity (arXiv 2604.17837) is not here: its measure could not be read in
the paper's own text.
"""

from typing import Any

import pandas as pd

from ..store import Store
from ._shared.answer import Answer, Chart, few_units, gather
from ._shared.chart_forms import heatmap, layers
from ._shared.experiments import asked, sql_of
from ._shared.scope import Scope, scope
from ._shared.verdicts.verdict import analyze, signed

PEAK, DIRECT = "peak of the mean update (z)", "direct attribution to the next token (logits)"
LIMITS = "it does not show what later layers make of it"


def run(store: Store, run: int | None = None) -> Answer:
    """Of the newest run or `run`."""
    here = scope(store, run)
    found, extra = asked(store, here.run, "writes", "updates of experts")
    frame = gather([found], family=())
    frames = {"figures": frame, "dictionary": _dictionary(here, frame, list(extra))}
    sql = dict.fromkeys(frames, sql_of(here.run, "writes"))
    notes = [*here.notes, *few_units(frame)]
    said = signed(
        _reading(frame, frames["dictionary"]),
        frame[frame["name"] == DIRECT],
        frame,
        LIMITS,
        analyze("syntax_experts"),
        "logits",
    )
    return Answer(
        "writes",
        "What an expert writes",
        said,
        here.run,
        frames,
        sql,
        notes,
        charts,
    )


def _dictionary(here: Scope, frame: pd.DataFrame, extra: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per expert: its entry, peak and attribution, with the tokens that it wrote most for."""
    peaks, direct = frame["name"] == PEAK, (frame["name"] == DIRECT) & frame["expert"].notna()
    keys = ["stack", "layer", "router", "expert"]
    said = frame.loc[peaks, [*keys, "value", "q"]].rename(columns={"value": "peak", "q": "peak q"})
    for word in ("promotes", "suppresses"):
        said[word] = [", ".join(extra[n][word]) for n in said.index]
    wrote = frame.loc[direct, [*keys, "value", "q"]].rename(columns={"value": "attribution", "q": "attribution q"})
    text = dict(here.store.rows(f"select token, text from token_text where run = {here.run}"))
    wrote["wrote for"] = [
        ", ".join(f"{text.get(token) or token} ({value:+.2f})" for value, token in extra[n]["tokens"]) for n in wrote.index
    ]
    return said.merge(wrote, on=keys, how="outer").sort_values("peak", ascending=False, ignore_index=True)


def _reading(frame: pd.DataFrame, dictionary: pd.DataFrame) -> str:
    peaks, whole = frame[frame["name"] == PEAK], frame[(frame["name"] == DIRECT) & frame["expert"].isna()]
    sharp, writing = peaks[peaks["q"] <= 0.05], whole[whole["q"] <= 0.05]
    said = f"{len(sharp)} of {len(peaks)} experts write some tokens more sharply than random directions do (q ≤ 0.05)"
    if len(sharp):
        top = dictionary.iloc[0]
        said += f", foremost expert {top['expert']} of layer {top['layer']}: {', '.join(top['promotes'].split(', ')[:3])}"
    if writing.empty:
        return f"{said}; no layer writes the token that comes more than those of its other tokens (q over all figures here)."
    best = writing.loc[writing["value"].idxmax()]
    span = "" if pd.isna(best["ci_low"]) else f" [{best['ci_low']:+.2f}, {best['ci_high']:+.2f}]"
    return (
        f"{said}; in {len(writing)} of {len(whole)} layers experts write for the token that comes, most in layer "
        f"{best['layer']}: {best['value']:+.2f} logits{span} on the direct path ({best['null_mean']:+.2f} for their other "
        f"tokens' next ones; {best['units']} documents; q ≤ 0.05 over all figures here)."
    )


def charts(answer: Answer) -> dict[str, Chart]:
    """Attribution by layer; peaks and attributions by layer and expert."""
    sql, drawn = answer.sql["figures"], {}
    frame = answer.figures(DIRECT)
    if len(whole := frame[frame["expert"].isna()]):
        drawn["direct attribution by layer"] = layers(whole, "Direct attribution (logits)", sql)
    drawn["peak by layer and expert"] = heatmap(answer.figures(PEAK), "Peak of the mean update (z)", sql)
    if len(each := frame[frame["expert"].notna()]):
        drawn["direct attribution by layer and expert"] = heatmap(each, "Direct attribution (logits)", sql)
    return drawn
