"""Syntactic versus semantic: does routing follow form or meaning, once it is known which token it is?

For every router, first choice E and kind of label L: mutual information I(E; L) in bits
* given token and document, Σ_vd n_vd/N I_vd: what is claimed. Labels are permuted among the tokens of one id in one document;
* given token, I(E; L | vocabulary id), for contrast: a topic that moves the words' labels and their routing shows here alone.
  For labels of whole documents (domain, genre), which cannot be told from their topic, this is what is claimed;
* given nothing, for contrast: what is usually printed; mostly the identity of tokens, as a word has few parts of speech;
* given token and upos, of meaning: what is not part of speech in it (n.FOOD and v.motion differ in both).
`plug-in` is the value of the counts, `corrected` that less the mean of its null. Null: labels permuted within what is given,
which keeps every token id's experts and labels; labels that hold for a whole document or sequence are permuted over these, and
their p is of what each took beyond its tokens, studentized (documents are not equally long). p: counted, and where that is too
coarse a Pearson III curve with the null's moments.
Interval: bootstrap over documents, of the corrected value to first order (influence function), and the null's spread.
`share of label known`: corrected I(E; L | ...) / H(L | ...), comparable between kinds; form minus meaning has its own
interval, from the same documents. Sources: POS sensitivity 2412.16971; conditional form: field's own; uncertainty coefficient,
Theil 1970.
"""

import re
from typing import Any

import pandas as pd

from .. import statistics as st
from ..errors import AnalysisError
from ..statistics.conditional import Information, beyond_stratum, label_entropy
from ..store import Store
from ..words import Count
from ._shared.answer import Answer, Chart, few_units, figures, gather
from ._shared.arrays.token_table import LIMIT, Tokens, tokens
from ._shared.chart_forms import layers
from ._shared.dealt_labels import FEW, deal
from ._shared.label_questions import GIVEN, Question, ask, beyond, choose, contrast, headline, name_of
from ._shared.scope import scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, analyze, clearest, verdict

SOURCE = "I(E; L | S) = Σ P log2 P(e,l|s) / P(e|s)P(l|s)"
KNOWN = "share of label known (of what is left open)"
PERMUTATIONS = 99


def run(
    store: Store,
    run: int | None = None,
    kinds: str | None = None,
    given: str | None = None,
    limit: Count = LIMIT,
    permutations: Count = PERMUTATIONS,
) -> Answer:
    """Information between routing and labels, by router.

    `kinds`: labels, separated by commas (default: those of form and meaning that are there); `given`: one of GIVEN (default:
    all that apply); `limit`: tokens counted at most; `permutations` of the null.
    """
    here = scope(store, run)
    read = tokens(here, limit)
    notes = [*here.notes, *read.notes]
    wanted = choose(read, kinds, notes)
    if given is not None and given not in GIVEN:
        raise AnalysisError(f"nothing is known about `given` {given!r}; there are: {', '.join(GIVEN)}")
    conditions = [given] if given else list(GIVEN)
    asked = [q for kind in wanted for q in ask(read, kind, conditions, permutations, notes)]
    frames = [row for q in asked for where, found in q.found for row in _rows(q, where, found, read)]
    if not frames:
        raise AnalysisError(
            f"run {here.run} has labels, but no token id occurs with two of them: nothing can be told apart; trace more text"
        )
    frames += _versus(asked)
    frame = gather(frames)
    answer = {"figures": frame, "kinds": pd.DataFrame([_describe(q) for q in asked])}
    return Answer(
        "syntax",
        "Syntactic versus semantic",
        _verdict(frame),
        here.run,
        answer,
        dict.fromkeys(answer, read.sql),
        notes + few_units(frame),
        charts,
    )


def _rows(q: Question, where: dict[str, Any], found: Information, read: Tokens) -> list[pd.DataFrame]:
    documents = int((found.total > 0).sum())
    common: dict[str, Any] = {"source": SOURCE, "n": int(found.total.sum()), "units": documents, "chance": 0.0}
    within = "" if q.tokens.whole or q.given == "nothing" else f" of one {q.given}"
    common["null_name"] = f"labels permuted over {q.kind.held}s{within}{contrast(q.given, q.kind.held)}"
    where, name = where | {"subset": q.kind.name}, name_of(q.given)
    draws = found.draws(st.bootstrap_weights(len(found.total)))
    first = figures(where, name, found.plugin, estimator="plug-in", null=found.null, **common)
    second = figures(
        where,
        name,
        found.value,
        estimator="corrected",
        null=found.null - found.null.mean(),
        draws=draws,
        information=True,
        **common,
    )
    p, said = _tested(q, found, read.chosen[int(where["router"])][:, :1])
    rows = [first.assign(p=p, p_from=said), second.assign(p=p, p_from=said)]
    entropy = label_entropy(q.tokens)
    if q.given in ("token", "token and document") and entropy > 0:
        more = common | {"source": f"corrected {name} / H(label | {q.given}), Theil 1970", "null_name": "", "n": common["n"]}
        form = f"given {q.given}"
        known = figures(where, KNOWN, found.value / entropy, estimator=form, **more)
        rows.append(known.assign(ci_low=second["ci_low"] / entropy, ci_high=second["ci_high"] / entropy))
    return rows


def _tested(q: Question, found: Information, first: Any) -> tuple[float, str]:
    """p of one router, and how it was had; of whole documents by what each took beyond its tokens."""
    if q.tokens.home is None:
        return found.p, f"count of {len(found.null)} draws, Pearson III beyond"
    rates = beyond_stratum(q.tokens, first, max(int(first.max()) + 1, 1))
    dealt = deal(q.tokens.home, q.tokens.labels, rates, FEW)
    return float(dealt.p()[0]), dealt.p_from


def _versus(asked: list[Question]) -> list[pd.DataFrame]:
    """Form minus meaning: the first kind of either side, as shares of what is left open, by router."""
    claimed = [q for q in asked if q.given == beyond(q.kind.held)]
    form, meaning = (next((q for q in claimed if q.kind.side == side), None) for side in ("form", "meaning"))
    if form is None or meaning is None:
        return []
    rows = []
    h_form, h_meaning = label_entropy(form.tokens), label_entropy(meaning.tokens)
    if not h_form or not h_meaning:
        return []
    for (where, a), (_, b) in zip(form.found, meaning.found):
        weights = st.bootstrap_weights(len(a.total))
        draws = a.settled(weights) / h_form - b.settled(weights, seed=2) / h_meaning
        value = a.value / h_form - b.value / h_meaning
        units = int(((a.total > 0) & (b.total > 0)).sum())
        p = st.document_tail(draws, value, units)
        row = figures(
            where | {"subset": f"{form.kind.name} - {meaning.kind.name}"},
            "form minus meaning (shares known)",
            value,
            source="difference of shares of label known",
            chance=0.0,
            draws=draws,
            n=int(a.total.sum()),
            units=units,
            null_name="none: two-sided from the bootstrap",
        )
        rows.append(row.assign(p=p, p_from="Student's t over documents"))
    return rows


def _describe(q: Question) -> dict[str, Any]:
    n = int(q.tokens.total.sum())
    return {
        "kind": q.kind.name,
        "side": q.kind.side,
        "given": q.given,
        "labels": len(q.kind.names),
        "permuted over": q.kind.held,
        "tokens": n,
        "tokens that can tell": len(q.tokens.rows),
        "H(label | given) (bits)": label_entropy(q.tokens),
    }


def _verdict(frame: pd.DataFrame) -> Verdict:
    """Of every kind what `headline` lets be claimed; where one condition alone was asked, that."""
    rows = headline(frame)
    rows = rows if len(rows) else frame[frame["estimator"] == "corrected"]
    kinds = dict(list(rows.groupby("subset", sort=False)))
    every = clearest(rows)
    found = every[every["q"] <= saying.FDR]
    nothing = [kind for kind, mine in kinds.items() if not (mine["q"] <= saying.FDR).any()]
    limits = "it does not show that a router reads the label, for labels of one token go with its neighbours"
    if found.empty:
        follows = f"Beyond token and document, routing tells nothing of {', '.join(kinds)}: {saying.most(every)}"
        return verdict(follows, every.iloc[0], frame, saying.NOTHING, every, analyze("senses"))
    said = [_kind(kind, rows, frame) for kind, rows in kinds.items() if kind not in nothing]
    follows = f"Routing tells {'; '.join(said)}" + (f"; nothing of {', '.join(nothing)}" if nothing else "")
    inside = found[found["name"].str.contains("and document")]
    best = (inside if len(inside) else found).sort_values("value").iloc[-1]
    rows = pd.concat([clearest(mine[mine["q"] <= saying.FDR]).head(2) for mine in kinds.values()])
    return verdict(follows, best, frame, limits, rows, analyze("syntax_experts"))


def _kind(kind: str, rows: pd.DataFrame, frame: pd.DataFrame) -> str:
    """What the strictest condition leaves of a kind, beside what the token alone would have said."""
    found = rows[rows["q"] <= saying.FDR]
    best = found.loc[found["value"].idxmax()]
    given = re.search(r"\| (.*)\)", best["name"].removesuffix(" (bits)"))
    what = f"{saying.amount(best)} of {kind} beyond the {given[1] if given else 'chance level'}"
    said = f"{what} in {saying.layer(best, frame)}, and something in {saying.share_of(len(found), len(rows), 'router')}"
    loose = frame[(frame["name"] == name_of("token")) & (frame["estimator"] == "corrected")]
    loose = loose[(loose["subset"] == kind) & (loose["router"] == best["router"])]
    if given is None or given[1] == "token" or loose.empty:
        return said
    return f"{said} (given the token alone {saying.number(loose['value'].iloc[0])}, topics included)"


def charts(answer: Answer) -> dict[str, Chart]:
    """What is claimed, by layer and kind, and for contrast what the token alone leaves."""
    frame = answer.frames["figures"]
    corrected = frame[frame["estimator"] == "corrected"]
    shown = {
        "information given token and document": headline(frame),
        "for contrast: given the token, topics included": corrected[corrected["name"] == name_of("token")],
        "share of label known": frame[(frame["name"] == KNOWN) & (frame["estimator"] == "given token and document")],
    }
    sql = answer.sql["figures"]
    return {title: layers(rows, f"{title}, by layer", sql, "subset") for title, rows in shown.items() if len(rows)}
