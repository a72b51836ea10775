"""Experts of form and meaning: which experts follow which label, once it is known which token it is?

For expert e of a router with M_t = 1 where e ran for token t: mutual information I(M; L | token id, document) in bits, plug-in
less the mean of its null (labels permuted among the tokens of one id in one document). Labels of whole documents cannot be told
from their topic: there I(M; L | token id), with labels dealt anew to documents and p studentized, as documents differ.
`label` is the one with the largest excess: tokens of that label that e took, less Σ_s n_sl m_s / n_s, what it would take if
labels did not matter for what is held constant; `excess share` is that over the tokens of the label.
Given the token alone stands beside it for contrast: a topic can move routing and labels together, and shows there.
p: counted, and where that is too coarse a Pearson III curve with the null's moments. Intervals: documents.
With k experts per token the memberships of a router's experts hang together: read one finding with its router.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from .. import statistics as st
from ..errors import AnalysisError
from ..statistics.conditional import beyond_stratum
from ..statistics.labelled import Cells, Labelled, labelled
from ..store import Store
from ..words import Count
from ._shared.answer import Answer, Chart, few_units, figures, gather
from ._shared.arrays.token_table import FORM, MEANING, Kind, tokens
from ._shared.chart_forms import heatmap
from ._shared.dealt_labels import FEW, deal
from ._shared.label_questions import beyond, choose, contrast, given_stratum
from ._shared.scope import scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, ablate, analyze, clearest, verdict

Ints = np.ndarray
Floats = np.ndarray
NAME = "I(runs; label | {}) (bits)"
CONDITIONS = ("token", "token and document")
PERMUTATIONS = 99
LIMIT = 30_000


def run(
    store: Store, run: int | None = None, kinds: str | None = None, limit: Count = LIMIT, permutations: Count = PERMUTATIONS
) -> Answer:
    """By router and expert. `kinds`: labels, separated by commas (default: the first of form and of meaning that are there)."""
    here = scope(store, run)
    read = tokens(here, limit)
    notes = [*here.notes, *read.notes]
    if kinds is None:
        firsts = [next((k for k in side if k in read.kinds), None) for side in (FORM, MEANING)]
        kinds = ",".join(k for k in firsts if k) or None
    frames = []
    for kind in choose(read, kinds, notes):
        for given in CONDITIONS:
            stratum = given_stratum(read, kind, given)
            shared = None if stratum is None else labelled(kind.code, stratum, read.document, kind.block, permutations)
            if shared is None or not len(shared.rows):
                continue
            for router, row in here.routers.iterrows():
                where = {"stack": row["stack"], "layer": row["layer"], "router": router}
                frames.append(_router(where, given, read.chosen[int(router)], int(row["experts"]), kind, shared))
    if not frames:
        raise AnalysisError(f"in run {here.run} no token id occurs with two labels: nothing can be told apart; trace more text")
    found = {"figures": gather(frames)}
    found["experts"] = _table(found["figures"])
    said = _verdict(found["figures"], int(here.routers["experts"].sum()))
    return Answer("syntax_experts", "Experts of form and meaning", said, here.run, found, dict.fromkeys(found, read.sql),
                  notes + few_units(found["figures"]), charts)  # fmt: skip


def _router(where: dict[str, Any], given: str, chosen: Ints, experts: int, kind: Kind, shared: Labelled) -> pd.DataFrame:
    """The figures of one router and kind; rows of `figures`, one per expert, with the label of largest excess as subset."""
    row, rank = np.nonzero((chosen[shared.rows] >= 0) & (chosen[shared.rows] < experts))
    expert = chosen[shared.rows][row, rank].astype(np.int64)
    measure, (cells, *others) = _Membership(shared.stratum, row, expert, experts, shared.labels), shared.cells
    total = shared.total.sum()
    value, sums = measure(cells) / total, measure.sums(cells, shared.document, len(shared.total)) / total
    null = shared.null(np.stack([measure(other) for other in others]) / total)
    weights = st.bootstrap_weights(len(shared.total))
    scale = (weights @ shared.total / total)[:, None]
    noise = np.random.default_rng(1).standard_normal((len(weights), 1)) * null.std(0)
    draws = weights @ sums / np.maximum(scale, 1e-9) + noise
    best, share = measure.excess(shared.label)
    names = [f"{kind.name}={kind.names[label]}" for label in best]
    common: dict[str, Any] = {"n": int(total), "units": int((shared.total > 0).sum()), "chance": 0.0}
    mean = null.mean(0)
    null_name = f"labels permuted over {kind.held}s" + ("" if shared.whole else f" of one {given}") + contrast(given, kind.held)
    place = where | {"expert": np.arange(experts), "subset": np.array(names)}
    source = "I(M; L | S) = Σ P log2 P(m,l|s) / P(m|s)P(l|s)"
    null = null - null.mean(0)
    first = figures(place, NAME.format(given), value - mean, estimator="corrected", draws=draws, null=null, null_name=null_name,
                    information=True, source=source, **common)  # fmt: skip
    first = first.assign(**dict(zip(("p", "p_from"), _tested(value, null + mean, chosen, experts, shared))))
    if given != beyond(kind.held):
        return first
    source = "tokens of the label beyond Σ_v n_vl m_v / n_v, over its tokens"
    return pd.concat([first, figures(place, "excess share", share, source=source, **common)], ignore_index=True)


def _tested(value: Floats, null: Floats, chosen: Ints, experts: int, shared: Labelled) -> tuple[Floats, str]:
    """p of every expert, and how it was had; of labels of whole documents by what each took beyond its tokens."""
    if shared.home is None:
        return np.asarray(st.curve_tail(value, null)), f"count of {len(null)} draws, Pearson III beyond"
    dealt = deal(shared.home, shared.labels, beyond_stratum(shared, chosen, experts), FEW)
    return dealt.p_by_expert(), dealt.p_from


class _Membership:
    """Σ_t log2 of P(m, l | s) / P(m | s) P(l | s) for every expert at once, for any assignment of labels to tokens."""

    def __init__(self, stratum: Ints, row: Ints, expert: Ints, experts: int, labels: int) -> None:
        self.stratum, self.row, self.expert, self.experts, self.labels = stratum, row, expert, experts, labels
        self.n_s = np.bincount(stratum)
        self.m_s = self._count(stratum, len(self.n_s))
        self.log = np.concatenate([[0.0], np.arange(1, len(stratum) + 1) * np.log2(np.arange(1, len(stratum) + 1))])

    def _count(self, cell: Ints, cells: int) -> Ints:
        """(cells, experts): how often each expert ran in each cell."""
        flat = np.bincount(cell[self.row] * self.experts + self.expert, minlength=cells * self.experts)
        return np.asarray(flat.reshape(cells, self.experts))

    def __call__(self, cells: Cells) -> Floats:
        """(experts,): N × information."""
        m = self._count(cells.cell, len(cells.n))
        total = (self.log[m] + self.log[cells.n[:, None] - m]).sum(0) - self.log[cells.n].sum()
        margins = (self.log[self.m_s] + self.log[self.n_s[:, None] - self.m_s]).sum(0) - self.log[self.n_s].sum()
        return np.asarray(total - margins)

    def sums(self, cells: Cells, document: Ints, documents: int) -> Floats:
        """(documents, experts): what each document adds to it."""
        m, n = self._count(cells.cell, len(cells.n)), cells.n[:, None]
        p, base = m / n, (self.m_s / self.n_s[:, None])[cells.stratum]
        with np.errstate(divide="ignore", invalid="ignore"):
            ran = np.nan_to_num(np.log2(p / base), posinf=0, neginf=0)
            not_ran = np.nan_to_num(np.log2((1 - p) / (1 - base)), neginf=0)
        own = sparse.csr_matrix((np.ones(len(document)), (document, cells.cell)), shape=(documents, len(cells.n))) @ not_ran
        place = document[self.row] * self.experts + self.expert
        more = (ran - not_ran)[cells.cell[self.row], self.expert]
        return np.asarray(own) + np.bincount(place, more, documents * self.experts).reshape(documents, self.experts)

    def excess(self, label: Ints) -> tuple[Ints, Floats]:
        """(experts,): the label with most tokens beyond what token identity gives, and the share of its tokens that it is."""
        of_label = self._count(label, self.labels).astype(float)
        strata = sparse.csr_matrix((np.ones(len(label)), (label, self.stratum)), shape=(self.labels, len(self.n_s)))
        of_label -= np.asarray(strata @ (self.m_s / self.n_s[:, None]))
        best = of_label.argmax(0)
        return best, of_label[best, np.arange(self.experts)] / np.bincount(label, minlength=self.labels)[best]


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """Experts with a finding, the clearest first; beside it, for contrast, what the token alone leaves."""
    keys = ["stack", "layer", "router", "expert"]
    bits = frame[frame["name"] != "excess share"].assign(kind=_kind(frame["subset"]))
    token, claimed = (
        rows.rename(columns={"value": "bits"}) for rows in (bits[bits["name"] == NAME.format("token")], _claimed(bits))
    )
    share = frame[frame["name"] == "excess share"][[*keys, "subset", "value"]].rename(columns={"value": "excess share"})
    contrast = token[["router", "expert", "kind", "bits", "q"]]
    contrast = contrast.rename(columns={"bits": "bits given the token", "q": "q given the token"})
    table = claimed[claimed["q"] <= 0.05][[*keys, "subset", "kind", "bits", "ci_low", "ci_high", "q"]]
    table = table.merge(share, on=[*keys, "subset"]).merge(contrast, how="left", on=["router", "expert", "kind"])
    table = table.sort_values("bits", ascending=False, ignore_index=True)
    return table.drop(columns="kind").rename(columns={"subset": "label"})


def _claimed(bits: pd.DataFrame) -> pd.DataFrame:
    """Given token and document, and of labels of whole documents given the token."""
    whole = bits["null"].str.contains("over documents", regex=False)
    return bits[(bits["name"] == NAME.format("token and document")) | ((bits["name"] == NAME.format("token")) & whole)]


def _kind(subset: pd.Series) -> pd.Series:
    return subset.str.replace("=.*", "", regex=True)


def _verdict(frame: pd.DataFrame, experts: int) -> Verdict:
    """Of what `_claimed` lets be claimed: given the document too, a topic cannot be the reason."""
    every = frame[frame["name"] != "excess share"]
    rows = clearest(claimed if len(claimed := _claimed(every)) else every)
    found, limits = rows[rows["q"] <= saying.FDR], "it does not show that the model needs the expert for that label"
    limits += ", and experts of one router hang together" if len(found) > 1 else ""
    if found.empty:
        follows = f"No expert of {experts} follows a label beyond token and document: {saying.most(rows)}"
        return verdict(follows, rows.iloc[0], frame, saying.NOTHING, rows, analyze("syntax"))
    best, count = found.loc[found["value"].idxmax()], len(found[["router", "expert"]].drop_duplicates())
    follows = (
        f"{count} of {saying.counted(experts, 'expert')} {'follows' if count == 1 else 'follow'} a label beyond token and "
        f"document, most {saying.expert(best, frame)} with {saying.amount(best)} of "
        f"{best['subset'].partition('=')[0]}, foremost {best['subset'].partition('=')[2]}"
    )
    return verdict(follows, best, frame, limits, found.sort_values("value", ascending=False), ablate(best))


def charts(answer: Answer) -> dict[str, Chart]:
    """Bits by layer and expert, for each kind."""
    frame = _claimed(answer.frames["figures"])
    return {
        f"experts by {kind}": heatmap(
            rows, f"Information on {kind} beyond token and document, by layer and expert", answer.sql["figures"]
        )
        for kind, rows in frame.groupby(_kind(frame["subset"]))
    }
