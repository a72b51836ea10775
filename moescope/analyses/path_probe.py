"""Path to part of speech: how well do a token's experts, layer by layer, tell its label, and is it more than the token?

A logistic regression reads the path of a token (its first expert in every router, one-hot) and says its label, cross-validated
over documents. Accuracy stands beside
* the majority: the most frequent label of the training documents, always;
* the word-form baseline: the most frequent label of that token id in the training documents (2412.16971: .91 for part of
  speech, where paths reach .75 to .89, so that a path that tells the token tells the label);
* path of another token: the same probe fed with the path of another token of the same id in the same document, drawn at random:
  what paths say through the token's identity and the document's topic alone. `path beyond token and document` is path less
  this:
  the figure that says whether routing knows the label in context. Tokens alone of their id in a document add nothing to it.
* for contrast `path beyond the token`: the other token from any document of the fold. A topic moves labels and paths alike, and
  shows here without any knowledge of the word in its sentence.
Null of both: other pairings of such paths. Intervals: documents.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from .. import statistics as st
from ..errors import AnalysisError
from ..store import Store
from ..words import Count
from ._shared.answer import Answer, Chart, few_units, figures, gather
from ._shared.arrays.token_table import Kind, Tokens, tokens
from ._shared.chart_forms import bars
from ._shared.label_questions import choose
from ._shared.scope import scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, analyze, clearest, verdict

Ints = np.ndarray
Floats = np.ndarray
SOURCE = "POS sensitivity, 2412.16971"
BEYOND = {"document": "path beyond token and document", "fold": "path beyond the token"}
OTHER = {"document": "path of another token", "fold": "path of another token, any document"}
CONTRAST = {"document": "", "fold": "; for contrast: topics are not held constant"}
PAIRINGS = 199
FOLDS = 5
LIMIT = 8_000


def run(store: Store, run: int | None = None, kinds: str = "upos", limit: Count = LIMIT) -> Answer:
    """By stack and kind of label; `kinds` separated by commas; at most `limit` tokens are read."""
    here = scope(store, run)
    here.need_ranks("the path of a token")
    read = tokens(here, limit)
    notes = [*here.notes, *read.notes]
    frames, confusion = [], []
    for kind in choose(read, kinds, []):
        for stack, rows in here.routers.groupby("stack", sort=False):
            keep = np.flatnonzero((kind.code >= 0) & (read.frame["stack"] == stack).to_numpy())
            if len(np.unique(read.document[keep])) < FOLDS:
                notes.append(
                    f"Fewer than {FOLDS} documents with {kind.name} in the {stack}: no cross-validation; trace more documents."
                )
                continue
            path = np.stack([read.chosen[int(router)][keep, 0] for router in rows.index], axis=1)
            made, table = _probe(f"{kind.name}", stack, path, read, kind, keep)
            frames += made
            confusion.append(table)
    if not frames:
        raise AnalysisError(
            f"run {here.run} has too few documents for a probe that is tested on other documents; trace {FOLDS} or more"
        )
    found = {"figures": gather(frames), "by label": pd.concat(confusion, ignore_index=True)}
    sql = dict.fromkeys(found, read.sql)
    return Answer("path_probe", "Path to part of speech", _verdict(found["figures"]), here.run, found, sql,
                  notes + few_units(found["figures"]), charts)  # fmt: skip


def _probe(
    subset: str, stack: str, path: Ints, read: Tokens, kind: Kind, keep: Ints
) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    label, word = kind.code[keep], read.vocab_id[keep]
    document = np.unique(read.document[keep], return_inverse=True)[1]
    features = _one_hot(path)
    folds = np.random.default_rng(0).permutation(np.arange(document.max() + 1) % FOLDS)[document]
    others = {name: _others(word, within) for name, within in (("document", document), ("fold", folds))}
    right = {name: np.zeros(len(label)) for name in ("path", "word form", "majority")}
    paired = {name: np.zeros((PAIRINGS, len(label)), dtype=bool) for name in others}
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        says = _fit(features[train], label[train])
        said = says(features)
        right["path"][test] = said[test] == label[test]
        for name, other in others.items():
            paired[name][:, test] = said[other[:, test]] == label[test]
        right["word form"][test], right["majority"][test] = _by_form(word, label, train, test)
    return _rows(subset, stack, right, paired, document), _by_label(kind, stack, label, right, paired)


def _one_hot(path: Ints) -> sparse.csr_matrix:
    """(tokens, Σ experts), a column per router and expert (and one for "none ran")."""
    codes = [np.unique(column, return_inverse=True)[1] for column in path.T]
    starts = np.concatenate([[0], np.cumsum([c.max() + 1 for c in codes])])
    columns = np.stack([c + start for c, start in zip(codes, starts)], axis=1)
    rows = np.repeat(np.arange(len(path)), path.shape[1])
    return sparse.csr_matrix((np.ones(rows.size), (rows, columns.ravel())), shape=(len(path), int(starts[-1])))


def _fit(features: Any, label: Ints) -> Any:
    """The probe's answers for any features; the only label where the training documents have one."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label)) < 2:
        return lambda x: np.full(x.shape[0], label[0])
    return LogisticRegression(C=1.0, max_iter=200, tol=1e-3).fit(features, label).predict


def _others(word: Ints, group: Ints) -> Ints:
    """(PAIRINGS, tokens): another token of the same id and group, by a random permutation within both."""
    within = np.unique(np.stack([word, group]), axis=1, return_inverse=True)[1].ravel()
    return st.permuted(np.arange(len(word)), PAIRINGS + 1, within=within)[1:]


def _by_form(word: Ints, label: Ints, train: Ints, test: Ints) -> tuple[Floats, Floats]:
    """Whether the most frequent training label of the token id (or of all, for new ids), and of all, is right."""
    most = np.bincount(label[train]).argmax()
    counts = pd.crosstab(word[train], label[train])
    said = pd.Series(counts.to_numpy().argmax(1), index=counts.index).map(dict(enumerate(counts.columns)))
    form = said.reindex(word[test]).fillna(most).to_numpy()
    return form == label[test], most == label[test]


def _rows(subset: str, stack: str, right: dict[str, Floats], paired: dict[str, Floats], document: Ints) -> list[pd.DataFrame]:
    units = int(document.max()) + 1
    weights = st.bootstrap_weights(units)
    size = np.bincount(document).astype(float)

    def accuracy(correct: Floats) -> tuple[float, Floats]:
        return float(correct.mean()), weights @ np.bincount(document, correct) / np.maximum(weights @ size, 1)

    where = {"stack": stack, "subset": subset}
    common: dict[str, Any] = {"n": len(document), "units": units, "source": SOURCE}
    majority = float(right["majority"].mean())
    every = right | {OTHER[name]: other.mean(0) for name, other in paired.items()}
    rows = []
    for name, correct in every.items():
        value, draws = accuracy(correct)
        rows.append(figures(where, "accuracy", value, estimator=name, chance=majority, draws=draws, bounds=(0, 1), **common))
    for name, other in paired.items():
        value, draws = accuracy(right["path"] - other.mean(0))
        null = other.mean(1) - other.mean()
        said = f"paths permuted among tokens of one id and {name}"
        rows.append(figures(where, BEYOND[name], value, chance=0.0, draws=draws, null=null, tail="t",
                            null_name=said + CONTRAST[name], **common))  # fmt: skip
    value, draws = accuracy(right["path"] - right["word form"])
    return [*rows, figures(where, "path less word form", value, chance=0.0, draws=draws, **common)]


def _by_label(kind: Kind, stack: str, label: Ints, right: dict[str, Floats], paired: dict[str, Floats]) -> pd.DataFrame:
    frame = pd.DataFrame({"label": np.array(kind.names)[label], OTHER["document"]: paired["document"].mean(0)} | right)
    means = frame.groupby("label").mean()
    means.insert(0, "tokens", frame["label"].value_counts())
    return means.reset_index().assign(kind=kind.name, stack=stack)


def _verdict(frame: pd.DataFrame) -> Verdict:
    rows = clearest(frame[frame["name"] == BEYOND["document"]])
    best = rows.iloc[0]
    accuracy = frame[(frame["name"] == "accuracy") & (frame["subset"] == best["subset"]) & (frame["stack"] == best["stack"])]
    said = {name: saying.number(100 * value) for name, value in zip(accuracy["estimator"], accuracy["value"])}
    limits = "it does not show that the model uses what its path tells"
    names = f"the path tells it for {said['path']} % of tokens and the word form alone for {said['word form']} %"
    if not best["q"] <= saying.FDR:
        nothing = f"no more of its {best['subset']} than token and document do: {saying.most(rows, '%')}"
        follows = f"A token's path tells {nothing}; {names}"
        return verdict(follows, best, frame, saying.NOTHING, pd.concat([rows, accuracy]), analyze("syntax"))
    told = f"its {best['subset']} beyond token and document for {saying.amount(best, '%')} of tokens more"
    follows = f"A token's path tells {told}; {names}"
    return verdict(follows, best, frame, limits, pd.concat([rows, accuracy]), analyze("syntax"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Accuracy beside its baselines."""
    title = "Accuracy of the probe and its baselines"
    return {"accuracy": bars(answer.figures("accuracy"), title, answer.sql["figures"], "subset", "estimator")}
