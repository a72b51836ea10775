"""Token-expert specialization: which experts are for what: domains, classes, modalities, token ids, patch positions?

By a label of sequences (domain, class, language, ...): see `labels.py`. `specialists`: cells that pass the false discovery
rate, the largest PMI first.
By token id, next id, predicted id, patch position and modality: see `vocabulary.py`.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...store import Store
from ...words import Portion
from .._shared import saying
from .._shared.answer import Answer, Chart, few_units, gather
from .._shared.chart_forms import heatmap, layers
from .._shared.contexts import contexts, words
from .._shared.decision_sample import Sample, sample
from .._shared.document_counts import load_sql, tables
from .._shared.scope import Scope, scope
from .._shared.verdict import Verdict, analyze, clearest, verdict
from .labels import by_label
from .vocabulary import NULL as SHUFFLE
from .vocabulary import PREDICTED, attributes, specialization

SHARE = "share of load by label"
CELLS = 200  # rows kept per router and attribute


def run(store: Store, run: int | None = None, by: str | None = None, fdr: Portion = 0.05) -> Answer:
    """Specialization by sequence label `by` (default: domain, class, or the first there is), and by token attributes."""
    here = scope(store, run)
    notes = list(here.notes)
    sql: dict[str, str] = {}
    labelled, specialists = _labels(here, by, fdr, sql, notes)
    taken = sample(here, notes)
    rows, cells = _attributes(here, taken, sql, notes)
    said, sql["contexts"] = contexts(here, taken.sql)
    sql = {"figures": taken.sql} | sql
    sql["specialists"] = sql["figures"]
    frame = gather([*labelled, *rows])
    frames = {"figures": frame, "specialists": specialists, "vocabulary": cells, "contexts": said}
    said = _verdict(frame, specialists, fdr)
    return Answer(
        "specialization", "Token-expert specialization", said, here.run, frames, sql, notes + few_units(frame), charts
    )


def _labels(here: Scope, by: str | None, fdr: float, sql: dict[str, str], notes: list[str]) -> tuple[Any, pd.DataFrame]:
    if (kind := here.kind_or_note(by, notes, "Nothing by label")) is None:
        return [], pd.DataFrame(
            columns=["stack", "layer", "router", "expert", "subset", "value", "overall", "lift", "pmi", "q"]
        )
    sql["figures"] = load_sql(here, kind)
    sql["tokens"] = f"""with units as ({here.units_sql(kind)})
select units.unit, router, 0 as expert, label, count(*) as n
from decisions join tokens using (token) join units using (sequence) where decisions.run = {here.run} group by all"""
    looked = {t.where["router"]: t.counts[:, :, 0].sum(1) for t in tables(here, sql["tokens"])}
    all_tables = list(tables(here, sql["figures"]))
    draws = int(np.clip(20 * sum(t.total.size for t in all_tables), 999, 9999))
    rows: list[pd.DataFrame] = []
    cells: list[pd.DataFrame] = []
    for table in all_tables:
        if (single := [label for i, label in enumerate(table.labels) if (table.home == i).sum() < 2]) and not rows:
            notes.append(f"{kind} {', '.join(single)}: one document only, so the document and the {kind} cannot be told apart.")
        figured, cell = by_label(table, looked[table.where["router"]], kind, draws)
        rows += figured
        cells.append(cell)
    found = pd.concat(cells, ignore_index=True)
    found["q"] = st.fdr(found["p"].to_numpy(float))
    special = found[(found["q"] <= fdr) & (found["lift"] > 1)].sort_values(["pmi", "n"], ascending=False, ignore_index=True)
    return rows, special


def _attributes(here: Scope, taken: Sample, sql: dict[str, str], notes: list[str]) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    sql["vocabulary"] = taken.sql
    rows, cells = [], []
    for name, code in attributes(taken).items():
        for figured, cell in specialization(taken, name, code):
            rows.append(figured)
            cells.append(cell)
    if not cells:
        return rows, pd.DataFrame()
    every = pd.concat(cells, ignore_index=True)
    every["q"] = st.fdr(every["p"].to_numpy(float))
    best = every.sort_values(["p", "value"], ascending=[True, False]).groupby(["router", "attribute"], sort=False).head(CELLS)
    texts = words(here).rename(columns={"vocab_id": "value_id"})
    order = ["stack", "layer", "router", "attribute", "expert", "p"]
    best = best.merge(texts, on="value_id", how="left").sort_values(order, ignore_index=True)
    best.loc[~best["attribute"].isin(["input id", "next id", "predicted id"]), "text"] = None
    if "input id" in set(every["attribute"]) and "predicted id" not in set(every["attribute"]):
        notes.append(
            "Nothing by predicted id: what the model predicted after each token is not in this run. Trace with --predictions "
            f"(token labels of the kind {PREDICTED}) to have it; where the model generated greedily, the next id is that."
        )
    return rows, best.assign(null=SHUFFLE)


def _verdict(frame: pd.DataFrame, specialists: pd.DataFrame, fdr: float) -> Verdict:
    info = clearest(frame[(frame["name"] == "I(label; expert) (bits)") & (frame["estimator"] == "less null mean")])
    if info.empty:
        return _of_tokens(frame, fdr)
    best, found = info.loc[info["value"].idxmax()], info[info["q"] <= fdr]
    kind = best["subset"]
    limits = f"it does not show that experts read the {kind} rather than what goes with it, such as words"
    ask = analyze("syntax" if (frame["subset"] == "input id").any() else "structure")
    if found.empty:
        follows = f"The {kind} tells no more of routing than {kind}s dealt anew to the documents: {saying.most(info)}"
        return verdict(follows, info.iloc[0], frame, saying.NOTHING, info, analyze("structure"))
    best = found.loc[found["value"].idxmax()]
    follows = (
        f"Routing follows the {kind} in {saying.share_of(len(found), len(info), 'router')}, most in "
        f"{saying.layer(best, frame)}, where it tells {saying.amount(best)} of an assignment beyond "
        f"chance; {_specialists(frame, specialists, fdr)}"
    )
    return verdict(follows, best, frame, limits, pd.concat([found.head(3), _rows(frame, specialists)]), ask)


def _specialists(frame: pd.DataFrame, specialists: pd.DataFrame, fdr: float) -> str:
    """How many experts, of how many, and the foremost."""
    every, cells = len(frame.dropna(subset=["expert"]).groupby(["router", "expert"])), int((frame["name"] == SHARE).sum())
    of = f"at a false discovery rate of {100 * fdr:g} % over {cells:,} cells of expert and label"
    if specialists.empty:
        return f"none of its {saying.counted(every, 'expert')} is a specialist {of}"
    top, count = specialists.iloc[0], len(specialists[["router", "expert"]].drop_duplicates())
    return (
        f"{saying.share_of(count, every, 'expert')} are specialists {of}, foremost {saying.expert(top, frame)} for "
        f"{top['subset'].partition('=')[2]}, with {saying.number(top['lift'])} times its share of all"
    )


def _rows(frame: pd.DataFrame, specialists: pd.DataFrame) -> pd.DataFrame:
    """The figures of the foremost specialists."""
    keys = ["router", "expert", "subset"]
    return specialists[keys].head(5).merge(frame[frame["name"] == SHARE], on=keys)[list(frame)]


def _of_tokens(frame: pd.DataFrame, fdr: float) -> Verdict:
    """Where no document has a label: what tokens tell by themselves."""
    ids = clearest(frame[(frame["name"] == "I(attribute; expert) (bits)") & (frame["estimator"] == "less null mean")])
    ids = ids if len(ids) else clearest(frame)
    best, limits = ids.iloc[0], "it does not show what experts do for topics or classes, of which this run has no label"
    told = f"a token's {best['subset']} tells {saying.amount(best)} of its first choice in {saying.layer(best, frame)}"
    nothing = f"No attribute of tokens tells more of routing than its null: {saying.most(ids)}"
    follows = f"No document has a label to compare; {told}" if best["q"] <= fdr else nothing
    return verdict(follows, best, frame, limits, ids, analyze("structure"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Information by layer, and each label's load."""
    info = answer.figures("I(label; expert) (bits)", estimator="less null mean")
    ids = answer.figures("vocabulary specialization", estimator="top-k")
    made = {}
    if len(info):
        made["information of the label"] = layers(info, "I(label; expert), bits beyond chance", answer.sql["figures"])
        for subset, part in answer.figures("domain specialization").groupby("subset"):
            made[f"specialization, {subset}"] = heatmap(part, f"Share of tokens of {subset} by expert", answer.sql["figures"])
            if len(made) > 12:
                break
    if len(ids):
        title = "Vocabulary specialization (mean largest share)"
        made["vocabulary specialization"] = layers(ids, title, answer.sql["vocabulary"], colour="subset")
    return made
