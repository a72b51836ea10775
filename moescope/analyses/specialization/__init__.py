"""Token-expert specialization: which experts are for what: domains, classes, modalities, token ids, patch positions?

By a label of sequences (domain, class, language, ...): see `labels.py`; of tokens (role, upos, ...): `token_labels.py`.
`specialists`: cells that pass the false discovery rate, the largest PMI first.
By token id, next id, predicted id, patch position and modality: see `vocabulary.py`.
"""

from typing import Any

import pandas as pd

from ... import statistics as st
from ...store import Store
from ...words import Portion
from .._shared.answer import Answer, Chart, few_units, gather
from .._shared.arrays.contexts import contexts, words
from .._shared.arrays.decision_sample import Sample, sample
from .._shared.arrays.document_counts import load_sql, tables
from .._shared.chart_forms import heatmap, layers
from .._shared.scope import Scope, scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, clearest, verdict
from .attributes import PREDICTED, attributes
from .labels import Found, by_label, lifted
from .token_labels import by_token_label, counts_sql, kind_of_tokens
from .vocabulary import NULL as SHUFFLE
from .vocabulary import specialization

SHARE = "share of load by label"
CELLS = 200  # rows kept per router and attribute
OF_RANKS = ("first choice", "released code", "I(attribute; expert) (bits)")
"""Figures that read first choices."""


def run(store: Store, run: int | None = None, by: str | None = None, fdr: Portion = 0.05) -> Answer:
    """Specialization by the label `by` of sequences (default: domain, class, or the first there is) or of tokens, and by token
    attributes."""
    here = scope(store, run)
    notes = list(here.notes)
    sql: dict[str, str] = {}
    labelled, found = _labels(here, by, sql, notes)
    taken = sample(here, notes)
    rows, every = _attributes(taken, sql, notes)
    said, sql["contexts"] = contexts(here, taken.sql)
    sql = {"figures": taken.sql} | sql
    sql["specialists"] = sql["figures"]
    frame = here.without_ranks(gather([*labelled, *rows], every), OF_RANKS, notes)
    specialists, cells = _specialists(found, frame, fdr), _surprising(here, every)
    frames = {"figures": frame, "specialists": specialists, "vocabulary": cells, "contexts": said}
    said = _verdict(frame, specialists, fdr)
    return Answer(
        "specialization", "Token-expert specialization", said, here.run, frames, sql, notes + few_units(frame), charts
    )


def _labels(here: Scope, by: str | None, sql: dict[str, str], notes: list[str]) -> tuple[Any, pd.DataFrame]:
    if (of_tokens := kind_of_tokens(here, by)) is not None:
        sql["figures"] = counts_sql(here, of_tokens)
        return by_token_label(here, of_tokens, sql["figures"])
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
    found = cells.assign(q=frame.loc[frame["name"] == SHARE, "q"].to_numpy(float))
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


def _verdict(frame: pd.DataFrame, specialists: pd.DataFrame, fdr: float) -> Verdict:
    info = clearest(frame[(frame["name"] == "I(label; expert) (bits)") & (frame["estimator"] == "less null mean")])
    if info.empty:
        return _of_tokens(frame, fdr)
    found, kind = info[info["q"] <= fdr], info["subset"].iloc[0]
    limits = f"it does not show that experts read the {kind} rather than what goes with it, such as words"
    if found.empty and specialists.empty:
        follows = f"The {kind} tells no more of routing than {kind}s dealt anew to the documents: {saying.most(info)}"
        return verdict(follows, info.iloc[0], frame, saying.NOTHING, info, analyze("structure"))
    rows = pd.concat([found.head(3), _rows(frame, specialists)])
    best = rows.iloc[0] if found.empty else found.loc[found["value"].idxmax()]
    told = f"in {saying.share_of(len(found), len(info), 'router')}, most in {saying.layer(best, frame)}, where it tells "
    told = f"{told}{saying.amount(best)} of an assignment beyond chance" if len(found) else "in single experts only"
    follows = f"Routing follows the {kind} {told}; {_foremost(frame, specialists, fdr)}"
    ask = analyze("syntax" if (frame["subset"] == "input id").any() else "structure")
    return verdict(follows, best, frame, limits, rows, ask)


def _foremost(frame: pd.DataFrame, specialists: pd.DataFrame, fdr: float) -> str:
    """How many experts are specialists, of how many, and the foremost."""
    every, cells = len(frame.dropna(subset=["expert"]).groupby(["router", "expert"])), frame[frame["name"] == SHARE]
    over = f"{saying.counted(len(cells), 'cell')} of expert and label{saying.times(cells.iloc[0])}"
    of = f"at a false discovery rate of {100 * fdr:g} % over {over}"
    if specialists.empty:
        return f"none of its {saying.counted(every, 'expert')} is a specialist {of}"
    top, count = specialists.iloc[0], len(specialists[["router", "expert"]].drop_duplicates())
    return (
        f"{saying.share_of(count, every, 'expert')} {'is a specialist' if count == 1 else 'are specialists'} {of}, foremost "
        f"{saying.expert(top, frame)} for {top['subset'].partition('=')[2]}, with {saying.number(top['lift'])} times its share "
        "of all"
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
        shown = answer.figures("domain specialization")
        what = "tokens" if len(shown) else "load"  # of labels of tokens the load is given
        for subset, part in (shown if len(shown) else answer.figures("share of load by label")).groupby("subset"):
            made[f"specialization, {subset}"] = heatmap(part, f"Share of {what} of {subset} by expert", answer.sql["figures"])
            if len(made) > 12:
                break
    if len(ids):
        title = "Vocabulary specialization (mean largest share)"
        made["vocabulary specialization"] = layers(ids, title, answer.sql["vocabulary"], colour="subset")
    return made
