"""Same word, different sense: do two uses of one token share more experts where they mean (or are) the same?

Overlap |T ∩ T'| / k of the experts of two tokens of the same vocabulary id in different documents (one token of each id and
document is drawn, so that no pair lies within a document and every pair is of independent texts):
same sense: pairs with the same label; different sense: pairs with different labels; the figure is the difference,
Σ_v w_v (same_v − different_v) / Σ_v w_v, w_v the harmonic mean of the two numbers of pairs of token id v, so that a word
counts only where it has both. Source: semantic routing 2502.10928 (p < .001, most in the middle layers).
Chance: the overlap of two tokens drawn at random: what load alone gives.
Null: labels permuted among the tokens of one id. Interval: documents, to first order (influence function).
Texts of one topic share senses and routing alike, so this (`between documents`) is for contrast. What is claimed is
`within documents`, which holds the document constant too: pairs of uses of one id in one document (at most 8 of each id drawn
there), with labels permuted among them; interval: documents. It takes words that change their label within a text; where there
are few, use sentences made for it, as in `probes/`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .. import statistics as st
from ..errors import AnalysisError
from ..store import Store, spelling
from ..words import Count
from ._shared.answer import Answer, Chart, few_units, figures, gather
from ._shared.arrays.token_table import LIMIT, Kind, tokens
from ._shared.chart_forms import layers
from ._shared.label_questions import choose
from ._shared.scope import scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, analyze, clearest, verdict

Ints = np.ndarray
Floats = np.ndarray
SENSES = ("sense", "supersense", "upos")
NAME = "overlap, same minus different"
PERMUTATIONS = 199
WITHIN, BETWEEN = " and document", "; for contrast: topics are not held constant"
EACH = 8  # uses of one id drawn in one document


@dataclass(frozen=True)
class Uses:
    """Drawn tokens with a label whose id has two labels: `rows` of the tokens read, id, label, document from 0."""

    kind: Kind
    rows: Ints
    word: Ints
    label: Ints
    document: Ints
    documents: int

    @cached_property
    def cells(self) -> Ints:
        """Words by labels that occur, coded; the same whatever the order of the labels of a word."""
        return np.unique(self.code(self.label))

    def code(self, label: Ints) -> Ints:
        """Word and label of every use as one number; `label` may be many rows."""
        return self.word * (int(self.label.max()) + 1) + label

    def cell(self, label: Ints) -> Ints:
        """Number among `cells` of every use."""
        return np.searchsorted(self.cells, self.code(label)).astype(np.int32)


def run(store: Store, run: int | None = None, kinds: str | None = None, limit: Count = LIMIT) -> Answer:
    """By router. `kinds`: labels that tell senses apart (default: those of sense, supersense, upos that are there)."""
    here = scope(store, run)
    read = tokens(here, limit)
    notes = [*here.notes, *read.notes]
    if kinds is None:
        kinds = ",".join(k for k in SENSES if k in read.kinds) or None
    frames, tables = [], []
    for kind in choose(read, kinds, []):
        for form, draw in (("between documents", _uses), ("within documents", _inside)):
            uses = draw(kind, read.vocab_id, read.document)
            if not len(uses.rows):
                notes.append(f"No token id has two values of {kind.name} {form}, so that no uses can be compared there.")
                continue
            tables.append(_words(uses, read.vocab_id, here.run, store).assign(pairs=form))
            shuffled = uses.cell(st.permuted(uses.label, PERMUTATIONS, within=uses.word))
            for router, row in here.routers.iterrows():
                where = {"stack": row["stack"], "layer": row["layer"], "router": router, "subset": kind.name}
                frames += _figures(where, form, read.chosen[int(router)], int(row["experts"]), uses, shuffled)
    if not frames:
        raise AnalysisError(
            f"in run {here.run} no token id occurs with two labels in different documents; trace more documents with labels of "
            "sense (supersense, sense, upos)"
        )
    found = {"figures": gather(frames), "words": pd.concat(tables, ignore_index=True)}
    said = _verdict(found["figures"])
    return Answer("senses", "Same word, different sense", said, here.run, found, dict.fromkeys(found, read.sql),
                  notes + few_units(found["figures"]), charts)  # fmt: skip


def _uses(kind: Kind, vocab_id: Ints, document: Ints) -> Uses:
    """One token of each id and document, of ids that then still have two labels."""
    known = np.flatnonzero((kind.code >= 0) & (vocab_id >= 0))
    known = np.random.default_rng(0).permutation(known)
    pair = vocab_id[known].astype(np.int64) * (int(document.max()) + 1) + document[known]
    rows = known[np.sort(np.unique(pair, return_index=True)[1])]
    labels = np.unique(np.stack([vocab_id[rows], kind.code[rows]]), axis=1)
    several, count = np.unique(labels[0], return_counts=True)
    rows = np.sort(rows[np.isin(vocab_id[rows], several[count > 1])])
    word = np.unique(vocab_id[rows], return_inverse=True)[1]
    documents, at = np.unique(document[rows], return_inverse=True)
    return Uses(kind, rows, word, kind.code[rows].astype(np.int64), at, len(documents))


def _inside(kind: Kind, vocab_id: Ints, document: Ints) -> Uses:
    """Uses of one id in one document that there have two labels; `word` numbers id and document together."""
    known = np.random.default_rng(0).permutation(np.flatnonzero((kind.code >= 0) & (vocab_id >= 0)))
    pair = vocab_id[known].astype(np.int64) * (int(document.max()) + 1) + document[known]
    order = np.argsort(pair, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(pair[order], pair[order])
    rows, pair = known[order[place < EACH]], pair[order[place < EACH]]
    labels = np.unique(np.stack([pair, kind.code[rows]]), axis=1)
    several, count = np.unique(labels[0], return_counts=True)
    keep = np.isin(pair, several[count > 1])
    rows, word = rows[keep], np.unique(pair[keep], return_inverse=True)[1]
    documents, at = np.unique(document[rows], return_inverse=True)
    return Uses(kind, rows, word, kind.code[rows].astype(np.int64), at, len(documents))


def _words(uses: Uses, vocab_id: Ints, run: int, store: Store) -> pd.DataFrame:
    """How many uses of which label each compared token id has."""
    text = spelling.words(store, run)
    frame = pd.DataFrame({"vocab_id": vocab_id[uses.rows], "label": [uses.kind.names[label] for label in uses.label]})
    frame = frame.value_counts(sort=False).rename("uses").reset_index()
    frame.insert(1, "text", [text.get(v, "") for v in frame["vocab_id"]])
    return frame.assign(kind=uses.kind.name)


class _Overlap:
    """Sums over pairs of uses, from the number of times each expert ran for a word and label."""

    def __init__(self, chosen: Ints, experts: int, uses: Uses) -> None:
        here = chosen[uses.rows]
        self.row, rank = np.nonzero((here >= 0) & (here < experts))
        self.expert, self.experts = here[self.row, rank].astype(np.int64), experts
        self.size = np.bincount(self.row, minlength=len(here)).astype(float)
        self.k = max(float(self.size.mean()), 1e-9)
        self.word, self.words = uses.word, int(uses.word.max()) + 1
        self.home = uses.cells // (int(uses.label.max()) + 1)
        self.all, self.pairs = self._pairs(self.word, self.words)

    def _sums(self, cell: Ints, cells: int) -> Floats:
        flat = np.bincount(cell[self.row] * self.experts + self.expert, minlength=cells * self.experts)
        return flat.reshape(cells, self.experts).astype(float)

    def _pairs(self, cell: Ints, cells: int) -> tuple[Floats, Floats]:
        """(cells,): summed overlap over pairs of different uses in a cell, and the number of pairs."""
        own = np.bincount(cell, self.size, minlength=cells)
        n = np.bincount(cell, minlength=cells)
        return ((self._sums(cell, cells) ** 2).sum(1) - own) / 2, n * (n - 1) / 2

    def by_word(self, cell: Ints) -> tuple[Floats, Floats, Floats]:
        """(words,): mean overlap of pairs of one label, of different labels, and the weight of the word."""
        overlap, pairs = self._pairs(cell, len(self.home))
        same, of = np.bincount(self.home, overlap, minlength=self.words), np.bincount(self.home, pairs, minlength=self.words)
        other = self.pairs - of
        weight = np.divide(of * other, self.pairs, out=np.zeros(self.words), where=self.pairs > 0)
        alike = np.divide(same, of * self.k, out=np.zeros(self.words), where=of > 0)
        unlike = np.divide(self.all - same, other * self.k, out=np.zeros(self.words), where=other > 0)
        return alike, unlike, weight

    def influence(self, cell: Ints) -> Floats:
        """(uses, 2): what each use adds to the weighted means of same and of different, words' weights held fixed."""
        alike, unlike, weight = self.by_word(cell)
        near, every = self._with(cell, len(self.home)), self._with(self.word, self.words)
        n_near = np.bincount(cell)[cell] - 1.0
        n_far = np.bincount(self.word)[self.word] - 1.0 - n_near
        of = np.maximum(np.bincount(self.word, n_near, minlength=self.words) / 2, 1e-9)[self.word]
        other = np.maximum(np.bincount(self.word, n_far, minlength=self.words) / 2, 1e-9)[self.word]
        share = (weight / max(weight.sum(), 1e-9))[self.word]
        same = share * (near / self.k - alike[self.word] * n_near) / of
        different = share * ((every - near) / self.k - unlike[self.word] * n_far) / other
        return np.stack([same, different], axis=1)

    def _with(self, cell: Ints, cells: int) -> Floats:
        """(uses,): summed overlap of each use with the others of its cell."""
        return np.bincount(self.row, self._sums(cell, cells)[cell[self.row], self.expert], minlength=len(cell)) - self.size


def _figures(where: dict[str, Any], form: str, chosen: Ints, experts: int, uses: Uses, shuffled: Ints) -> list[pd.DataFrame]:
    overlap = _Overlap(chosen, experts, uses)
    own = uses.cell(uses.label)
    alike, unlike, weight = overlap.by_word(own)
    if weight.sum() == 0:
        return []
    mean = np.array([alike @ weight, unlike @ weight]) / weight.sum()
    null = []
    for cell in shuffled:
        a, b, w = overlap.by_word(cell)
        null.append((a - b) @ w / max(w.sum(), 1e-9))
    weights = st.bootstrap_weights(uses.documents)
    if form == "within documents":  # a word is of one document: whole words are drawn
        home = np.zeros(overlap.words, dtype=int)
        home[uses.word] = uses.document
        parts = np.stack([np.bincount(home, x * weight, uses.documents) for x in (alike, unlike, np.ones(len(weight)))], axis=1)
        drawn = weights @ parts
        draws = drawn[:, :2] / np.maximum(drawn[:, 2:], 1e-9)
    else:
        added = overlap.influence(own).T
        draws = mean + (weights - 1) @ np.stack([np.bincount(uses.document, x, uses.documents) for x in added], axis=1)
    common: dict[str, Any] = {"n": len(uses.rows), "units": uses.documents, "source": "overlap |T∩T'|/k, 2502.10928"}
    common["estimator"] = form
    p = np.bincount(overlap.expert, minlength=experts) / len(uses.rows)
    chance = float(p @ p / overlap.k)
    rows = [figures(where, f"overlap, {name} label", mean[i], draws=draws[:, i], chance=chance, bounds=(0, 1), **common)
            for i, name in enumerate(("same", "different"))]  # fmt: skip
    difference = figures(where, NAME, mean[0] - mean[1], draws=draws[:, 0] - draws[:, 1], chance=0.0, null=np.array(null),
                         null_name=f"labels permuted among tokens of one id{WITHIN if 'within' in form else BETWEEN}",
                         **common)  # fmt: skip
    return [*rows, difference]


def _verdict(frame: pd.DataFrame) -> Verdict:
    """Of the uses in one document: there a topic cannot be the reason."""
    forms = dict(list(frame[frame["name"] == NAME].groupby("estimator")))
    rows = clearest(forms.get("within documents", forms.get("between documents")))
    found, ask = rows[rows["q"] <= saying.FDR], analyze("syntax")
    if "within documents" not in forms:
        follows = "No word has two labels in one document, so that whether routing tells its senses apart cannot be said here"
        limits = "pairs of different documents stand here for contrast, and do not show it, for topics move them"
        return verdict(follows, rows.iloc[0], frame, limits, rows, ask, "comparison")
    if found.empty:
        alike = "Two uses of a token in one document share no more experts where their labels are the same"
        return verdict(f"{alike}: {saying.most(rows, '%')}", rows.iloc[0], frame, saying.NOTHING, rows, ask, "comparison")
    best = found.loc[found["value"].idxmax()]
    follows = (
        f"Two uses of a token in one document share more experts where their labels are the same, in "
        f"{saying.share_of(len(found), len(rows), 'comparison')}, most for {best['subset']} in {saying.layer(best, frame)}: "
        f"{saying.amount(best, '%')} more of their experts"
    )
    return verdict(follows, best, frame, "it does not show that the label is what the router reads", found, ask, "comparison")


def charts(answer: Answer) -> dict[str, Chart]:
    """The difference by layer."""
    both = answer.figures(NAME).groupby("estimator")
    return {f"{NAME}, {form}": layers(rows, f"{NAME}, {form}", answer.sql["figures"], "subset") for form, rows in both}
