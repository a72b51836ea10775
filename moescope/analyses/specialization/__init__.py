"""Token-expert specialization: which experts are for what: domains, classes, modalities, token ids, patch positions?

By a label of sequences (domain, class, language, ...): see `labels.py`. `specialists`: cells that pass the false discovery
rate, the largest PMI first.
By token id, next id, predicted id, patch position and modality: see `vocabulary.py`.
"""

from typing import Any

import pandas as pd

from ... import statistics as st
from ...store import Store
from ...words import Portion
from .._shared.answer import Answer, Chart, few_units, gather
from .._shared.chart_forms import heatmap, layers
from .._shared.contexts import contexts, words
from .._shared.decision_sample import Sample, sample
from .._shared.document_counts import load_sql, tables
from .._shared.scope import Scope, scope
from .labels import Found, by_label, lifted
from .vocabulary import NULL as SHUFFLE
from .vocabulary import PREDICTED, attributes, specialization

CELLS = 200  # rows kept per router and attribute


def run(store: Store, run: int | None = None, by: str | None = None, fdr: Portion = 0.05) -> Answer:
    """Specialization by sequence label `by` (default: domain, class, or the first there is), and by token attributes."""
    here = scope(store, run)
    notes = list(here.notes)
    sql: dict[str, str] = {}
    labelled, found = _labels(here, by, sql, notes)
    taken = sample(here, notes)
    rows, every = _attributes(taken, sql, notes)
    said, sql["contexts"] = contexts(here, taken.sql)
    sql = {"figures": taken.sql} | sql
    sql["specialists"] = sql["figures"]
    frame = gather([*labelled, *rows], every)
    specialists, cells = _specialists(found, frame, fdr), _surprising(here, every)
    frames = {"figures": frame, "specialists": specialists, "vocabulary": cells, "contexts": said}
    reading = _reading(frame, specialists, fdr)
    return Answer(
        "specialization", "Token-expert specialization", reading, here.run, frames, sql, notes + few_units(frame), charts
    )


def _labels(here: Scope, by: str | None, sql: dict[str, str], notes: list[str]) -> tuple[Any, pd.DataFrame]:
    if (kind := here.kind_or_note(by, notes, "Nothing by label")) is None:
        return [], pd.DataFrame(
            columns=["stack", "layer", "router", "expert", "subset", "value", "overall", "lift", "pmi", "n"]
        )
    sql["figures"] = load_sql(here, kind)
    sql["tokens"] = f"""with units as ({here.units_sql(kind)})
select units.unit, router, 0 as expert, label, count(*) as n
from decisions join tokens using (token) join units using (sequence) where decisions.run = {here.run} group by all"""
    looked = {t.where["router"]: t.counts[:, :, 0].sum(1) for t in tables(here, sql["tokens"])}
    kinds = here.kinds()[kind]
    special, share = ([st.Pool() for _ in range(kinds)] for _ in range(2))
    made: list[Found] = []
    for table in tables(here, sql["figures"]):
        if (single := [label for i, label in enumerate(table.labels) if (table.home == i).sum() < 2]) and not made:
            notes.append(f"{kind} {', '.join(single)}: one document only, so the document and the {kind} cannot be told apart.")
        made.append(by_label(table, looked[table.where["router"]], kind, special, share))
    shares = [one.share.tested() for one in made]
    rows = [*(one.special.tested() for one in made), *shares, *(row for one in made for row in one.whole)]
    return rows, pd.concat([lifted(figured, one.overall) for figured, one in zip(shares, made)], ignore_index=True)


def _specialists(cells: pd.DataFrame, frame: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Cells above their share that pass, with the q that their figures have."""
    found = cells.assign(q=frame.loc[frame["name"] == "share of load by label", "q"].to_numpy(float))
    best = found[(found["q"] <= fdr) & (found["lift"] > 1)]
    return best.sort_values(["pmi", "n"], ascending=False, ignore_index=True)


def _attributes(taken: Sample, sql: dict[str, str], notes: list[str]) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    sql["vocabulary"] = taken.sql
    rows, cells = [], []
    for name, code in attributes(taken).items():
        for figured, cell in specialization(taken, name, code):
            rows.append(figured)
            cells.append(cell)
    if not cells:
        return rows, pd.DataFrame()
    every = pd.concat(cells, ignore_index=True)
    names = set(every["attribute"].unique())
    if "input id" in names and "predicted id" not in names:
        notes.append(
            "Nothing by predicted id: what the model predicted after each token is not in this run. Trace with --predictions "
            f"(token labels of the kind {PREDICTED}) to have it; where the model generated greedily, the next id is that."
        )
    return rows, every


def _surprising(here: Scope, every: pd.DataFrame) -> pd.DataFrame:
    """The CELLS of each router and attribute with the least p, with the text of the ids."""
    if every.empty:
        return every
    best = every.sort_values(["p", "value"], ascending=[True, False]).groupby(["router", "attribute"], sort=False).head(CELLS)
    texts = words(here).rename(columns={"vocab_id": "value_id"})
    order = ["stack", "layer", "router", "attribute", "expert", "p"]
    best = best.merge(texts, on="value_id", how="left").sort_values(order, ignore_index=True)
    best.loc[~best["attribute"].isin(["input id", "next id", "predicted id"]), "text"] = None
    return best.assign(null=SHUFFLE)


def _reading(frame: pd.DataFrame, specialists: pd.DataFrame, fdr: float) -> str:
    info = frame[(frame["name"] == "I(label; expert) (bits)") & (frame["estimator"] == "less null mean")]
    if info.empty:
        ids = frame[(frame["name"] == "I(attribute; expert) (bits)") & (frame["estimator"] == "less null mean")]
        most = (
            f"token attributes tell up to {ids['value'].max():.2f} bits of the first choice" if len(ids) else "nothing varies"
        )
        return f"No labels to compare; {most}."
    best = info.loc[info["value"].idxmax()]
    where = f"{best['stack']} layer {best['layer']}"
    if not (info["q"] <= fdr).any() and specialists.empty:
        least = info["p"].min()
        return f"The {best['subset']} tells no more of routing than labels dealt anew to the documents (least p {least:.2g})."
    said = f"The {best['subset']} tells {best['value']:.3f} bits of an assignment beyond chance ({where}, p = {best['p']:.2g})"
    if specialists.empty:
        return f"{said}; no expert is a specialist at a false discovery rate of {fdr:.0%}."
    top = specialists.iloc[0]
    count = len(specialists[["router", "expert"]].drop_duplicates())
    return (
        f"{said}; {count} experts are specialists at FDR {fdr:.0%}, foremost expert {top['expert']} of layer {top['layer']} "
        f"for {top['subset']} ({top['lift']:.1f} x)."
    )


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
