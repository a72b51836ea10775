"""Guesses at the experts of a token without its model: from load, position, token id, bigram, and the layer before.

A guess is the k experts of highest score, k as many as ran. Scores come from the tokens of other documents (five folds):
* load: how often each expert ran at all;
* position (powers of two), token id, bigram (the id before, and the id): how often each expert ran for tokens that agree in
  that, beside so many assignments shared out as the coarser guess has it (load, load, token id) as tell left-out tokens best (a
  Dirichlet prior, MacKay and Peto 1995); it decides alone where a context is new;
* layer before: for each expert that ran for the token there, the shares in which experts ran here, averaged, and a hundredth of
  load, so that nothing is impossible;
* token id and layer before: the product of the two, over load.
Scores are shares that sum to 1: what they say of an assignment in bits is log2 of its expert's score over its share of load.
"""

from dataclasses import dataclass

import numpy as np

from ...statistics import Array
from .arrays.decision_sample import Sample, by_unit, one_hot

FOLDS = 5
BEFORE, BOTH = "layer before", "token id and layer before"
PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # assignments


@dataclass(frozen=True)
class Contexts:
    """What guesses know of every token: `code[name]` (tokens,), −1 where it has none; `fold` (tokens,) by document."""

    code: dict[str, Array]
    fold: Array

    @classmethod
    def of(cls, taken: Sample) -> "Contexts":
        """Of every token of a sample."""
        columns = taken.tokens
        code = {"position": np.floor(np.log2(columns["position"].to_numpy(np.int64) + 1)).astype(np.int64)}
        if columns["vocab_id"].notna().any():
            ids = columns["vocab_id"].fillna(-1).to_numpy(np.int64)
            before = np.full(len(ids), -1, dtype=np.int64)
            before[taken.neighbours + 1] = ids[taken.neighbours]
            code["token id"] = ids
            code["bigram"] = np.where((ids >= 0) & (before >= 0), before * (ids.max() + 2) + ids, -1)
        fold = np.random.default_rng(0).permutation(np.arange(taken.units) % FOLDS)[taken.unit]
        return cls(code, fold)


def guessed(contexts: Contexts, rows: Array, chosen: Array, experts: int, before: Array | None) -> dict[str, Array]:
    """(2, tokens) by what the guess knows: assignments guessed, and bits known of them.

    `rows` number the tokens of `chosen` (tokens, k).

    `before` (tokens, E'): who ran for them in the router before, if there is one.
    """
    ran, k, fold = one_hot(chosen, experts), (chosen >= 0).sum(1), contexts.fold[rows]
    codes = {name: np.unique(code[rows], return_inverse=True)[1] for name, code in contexts.code.items()}
    known = {name: contexts.code[name][rows] >= 0 for name in codes}
    found: dict[str, Array] = {}
    for number in range(FOLDS):
        (test,), train = np.nonzero(fold == number), fold != number
        if not len(test) or not train.any():
            continue
        scores = _scores(codes, known, ran, train, test, before)
        for name, score in scores.items():
            bits = (np.log2(score / scores["load"]) * ran[test]).sum(1)
            found.setdefault(name, np.zeros((2, len(rows))))[:, test] = _hits(score, ran[test], k[test]), bits
    return found


def held_out(contexts: Contexts, rows: Array, chosen: Array, experts: int, name: str) -> Array:
    """(tokens, E) of one guess over the guess from load: above 1 where the expert is likelier than it is at large."""
    ran, fold = one_hot(chosen, experts), contexts.fold[rows]
    codes = {n: np.unique(code[rows], return_inverse=True)[1] for n, code in contexts.code.items()}
    known = {n: contexts.code[n][rows] >= 0 for n in codes}
    found = np.ones((len(rows), experts))
    for number in range(FOLDS):
        (test,), train = np.nonzero(fold == number), fold != number
        if len(test) and train.any():
            scores = _scores(codes, known, ran, train, test, None)
            found[test] = scores[name] / scores["load"]
    return found


def _scores(
    codes: dict[str, Array], known: dict[str, Array], ran: Array, train: Array, test: Array, before: Array | None
) -> dict[str, Array]:
    """(test tokens, E) of each guess; rows sum to 1."""
    load = (ran[train].sum(0) + 1e-3) / (ran[train].sum() + 1e-3 * ran.shape[1])
    score = {"load": np.broadcast_to(load, (len(test), len(load)))}
    for name, code in codes.items():
        seen = _Seen.of(code, ran, train & known[name])
        prior, counts = seen.prior(load), seen.at(code[test]) * known[name][test, None]
        below = score["token id" if name == "bigram" else "load"]
        score[name] = (counts + prior * below) / (counts.sum(1, keepdims=True) + prior)
    if before is not None:
        moved = _moved(before, ran, train, test)
        known_before = moved.sum(1, keepdims=True) > 0
        score[BEFORE] = np.where(known_before, 0.99 * _normal(moved) + 0.01 * load, load)
        if "token id" in score:
            score[BOTH] = _normal(score["token id"] * score[BEFORE] / load)
    return score


def _normal(score: Array) -> Array:
    return np.asarray(score / np.maximum(score.sum(1, keepdims=True), 1e-300))


@dataclass(frozen=True)
class _Seen:
    """How often each expert ran in each context of the training tokens: cells (context, expert) that occur, `n` of each."""

    context: Array
    expert: Array
    n: Array
    total: Array  # (contexts,)
    experts: int

    @classmethod
    def of(cls, code: Array, ran: Array, train: Array) -> "_Seen":
        token, expert = np.nonzero(ran & train[:, None])
        cell, n = np.unique(code[token] * ran.shape[1] + expert, return_counts=True)
        context = cell // ran.shape[1]
        total = np.bincount(context, n, minlength=int(code.max(initial=0)) + 1)
        return cls(context, cell % ran.shape[1], n, total, ran.shape[1])

    def prior(self, load: Array) -> float:
        """Of PRIORS, the one under which every assignment is likeliest given the others of its context."""
        if not len(self.n):
            return PRIORS[-1]
        rest, share = self.total[self.context] - 1, load[self.expert]
        fits = [float((self.n * np.log((self.n - 1 + m * share) / (rest + m))).sum()) for m in PRIORS]
        return PRIORS[int(np.argmax(fits))]

    def at(self, contexts: Array) -> Array:
        """(contexts, E) counts."""
        wanted, place = np.unique(contexts, return_inverse=True)
        row = np.full(len(self.total), -1)
        row[wanted] = np.arange(len(wanted))
        mine = row[self.context] >= 0
        table = np.zeros((len(wanted), self.experts))
        table[row[self.context[mine]], self.expert[mine]] = self.n[mine]
        return np.asarray(table[place])


def _moved(before: Array, ran: Array, train: Array, test: Array) -> Array:
    """(test tokens, E): shares of this router's experts given each expert of the one before, summed."""
    there = before[train].astype(np.float32)
    shares = there.T @ ran[train].astype(np.float32) / np.maximum(there.sum(0), 1)[:, None]
    return np.asarray(before[test].astype(np.float32) @ shares, dtype=float)


def _hits(score: Array, ran: Array, k: Array) -> Array:
    """(tokens,): how many of the experts that ran are among the k of highest score, ties to the lower number."""
    found = np.zeros(len(score))
    tilted = score - 1e-9 * np.arange(score.shape[1])
    for count in np.unique(k[k > 0]):
        mine = k == count
        least = np.partition(tilted[mine], score.shape[1] - count, axis=1)[:, score.shape[1] - count, None]
        found[mine] = ((tilted[mine] >= least) & ran[mine]).sum(1)
    return found


def by_document(unit: Array, units: int, found: dict[str, Array], chosen: Array) -> tuple[dict[str, Array], Array]:
    """Sums over the tokens of each document: (2, units) guessed and bits by name, and (units,) assignments."""
    sums = {name: np.stack([by_unit(unit, units, row) for row in rows]) for name, rows in found.items()}
    return sums, by_unit(unit, units, (chosen >= 0).sum(1))
