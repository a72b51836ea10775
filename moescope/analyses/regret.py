"""Counterfactual routing: would the next token have been likelier had a token gone to other experts?

What `moescope experiment regret MODEL STORE` measured (arXiv 2605.07260): one token's experts in one layer are replaced by
other sets of the same size, and each is scored by the log probability of the token that really came next.
* regret (nats): best alternative minus executed, mean over tokens; and by quarter of how likely the next token is in the mean
  over all sets: quarter 1 holds the fragile tokens, quarter 4 the confident ones.
* share of alternatives that are better than the executed set; chance 1/2.
Null of both: the executed set drawn evenly among those scored, p for "less": a router is better than such a draw where it is
small. The best of many beats one by luck, so regret says nothing without it. Intervals: documents. `tokens`: those of most
regret.
"""

from typing import Any

import pandas as pd

from ..store import Store, spelling
from ._shared.answer import Answer, Chart, few_units, gather
from ._shared.chart_forms import layers
from ._shared.experiments import asked, sql_of
from ._shared.scope import Scope, scope
from ._shared.verdicts.verdict import analyze, signed

TOKENS = "regret of a token (nats)"
REGRET, BETTER = "regret (nats)", "share of alternatives that are better"
LIMITS = "it does not show how a router would have to be trained to choose better"


def run(store: Store, run: int | None = None) -> Answer:
    """Of the newest run or `run`."""
    here = scope(store, run)
    found, extra = asked(store, here.run, "regret", "counterfactual routes")
    tokens = found["name"] == TOKENS
    frame = gather([found[~tokens]], family=())
    sql = {"figures": sql_of(here.run, "regret"), "tokens": sql_of(here.run, "regret")}
    frames = {"figures": frame, "tokens": _tokens(here, found[tokens], list(extra[tokens.to_numpy()]))}
    notes = [*here.notes, *few_units(frame)]
    said = signed(_reading(frame), frame[frame["name"] == REGRET], frame, LIMITS, analyze("load"), "nats")
    return Answer(
        "regret",
        "Counterfactual routing",
        said,
        here.run,
        frames,
        sql,
        notes,
        charts,
    )


def _tokens(here: Scope, rows: pd.DataFrame, extra: list[dict[str, Any]]) -> pd.DataFrame:
    """Tokens of most regret, with their text."""
    said = pd.DataFrame([{k: e.get(k) for k in ("token", "executed", "best", "log_p", "margin", "better")} for e in extra])
    if rows.empty:
        return said
    keys = ", ".join(str(int(key)) for key in said["token"])
    text = here.store.sql(f"select token, text, position from token_text where token in ({keys})").df()
    text = spelling.of_store(here.store, here.run).column(text)
    frame = rows[["stack", "layer", "router"]].reset_index(drop=True).join(said)
    frame.insert(3, "regret", rows["value"].to_numpy())
    return frame.merge(text, on="token", how="left").sort_values("regret", ascending=False, ignore_index=True)


def _reading(frame: pd.DataFrame) -> str:
    whole = frame[(frame["name"] == REGRET) & (frame["subset"] == "")]
    less = whole[whole["q"] <= 0.05]
    worst = whole.loc[whole["value"].idxmax()]
    span = "" if pd.isna(worst["ci_low"]) else f" [{worst['ci_low']:.3f}, {worst['ci_high']:.3f}]"
    said = (
        f"In {len(less)} of {len(whole)} layers the executed experts are better than sets drawn evenly among those scored "
        f"(q ≤ 0.05 over all figures here); regret is largest in layer {worst['layer']}: {worst['value']:.3f} nats{span}, "
        f"where such a draw would have {worst['null_mean']:.3f} ({worst['n']} tokens of {worst['units']} documents)."
    )
    fragile = frame[(frame["name"] == REGRET) & (frame["subset"] == "likelihood quarter 1 of 4")]
    if fragile.empty:
        return said
    better = int((fragile["q"] <= 0.05).sum())
    return f"{said} On the quarter of tokens whose next token is least likely that holds in {better} of {len(fragile)} layers."


def charts(answer: Answer) -> dict[str, Chart]:
    """Regret by layer, whole and by quarter."""
    frame, sql = answer.figures(REGRET), answer.sql["figures"]
    frame = frame.assign(subset=frame["subset"].replace("", "all tokens"))
    return {"regret by layer": layers(frame, "Regret (nats)", sql, "subset")}
