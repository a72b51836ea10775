"""Routing signatures: do token types, and experts, that are routed alike belong to one part of speech or to one meaning?

Signature of a token type (vocabulary id seen at least `least` times): how often each expert of each router ran for it, as the
root of its shares, so that distance is Hellinger's; of an expert: the root of the share of its tokens that each type has.
Clusters: Ward's hierarchy of signatures, cut into as many as the partition has labels. Agreement with the partition of types
by their most frequent label (upos: form; supersense, domain, ...: meaning): adjusted mutual information and adjusted Rand
index, 1 for identity. Null: labels permuted among types of like frequency (rare types have noisy signatures and haphazard
labels, and agree by that alone: read the value beside its null). Labels that hold for whole documents or sequences are dealt
anew to these, and types take the most frequent again, for contrast only: words of one domain stand in the same documents,
which have routing of their own, and no dealing of labels holds that constant (`specialization` asks of documents themselves).
Interval: documents (the types stay).
An agreement of types says that words of a kind are routed alike; whether one word changes experts with its label is asked by
`syntax`. Types of one label are alike in spelling too: that is not held constant here.
Experts get the label they take most of beyond its share; no agreement is tested there, for it would follow from that of types.
Maps: UMAP, several seeds; `stability` is the share of 10 nearest neighbours that two seeds have in common and the Procrustes
disparity between their maps; `faithfulness` the share of neighbours in the map that are neighbours in signature space. Never
read distances between clusters of a map.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from ...store import Store, spelling
from ...words import Count, Some
from .._shared.answer import Answer, Chart, few_units, figures, gather
from .._shared.arrays.token_table import LIMIT, Kind, Tokens, tokens
from .._shared.chart_forms import chart
from .._shared.label_questions import choose
from .._shared.scope import scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, clearest, verdict
from .maps import Agreement, cut, map_rows, tree

Ints = np.ndarray
Floats = np.ndarray
LEAST = 10
TYPES = 500
PERMUTATIONS = 199
DRAWS = 100
NULL = "labels permuted among items of like frequency"
WHOLE = "labels dealt anew to {0}s; for contrast: words of one label share {0}s, which have routing of their own"


def run(
    store: Store, run: int | None = None, kinds: str | None = None, least: Count = LEAST, seeds: Some = 3, limit: Count = LIMIT
) -> Answer:
    """`kinds` of labels (default: all of form and meaning), types seen `least` times or more, `seeds` maps (0: none)."""
    here = scope(store, run)
    read = tokens(here, limit)
    notes = [*here.notes, *read.notes]
    wanted = choose(read, kinds, notes)
    types, count = np.unique(read.vocab_id[read.vocab_id >= 0], return_counts=True)
    types = np.sort(types[count >= least][np.argsort(-count[count >= least], kind="stable")][:TYPES])
    if len(types) < 20:
        raise AnalysisError(
            f"run {here.run} has {len(types)} token ids seen {least} times or more, and 20 are needed; trace more text, or "
            "lower `least`"
        )
    ran = _ran(read, types)
    signature = {"token types": _hellinger(ran.table()), "experts": _hellinger(ran.table().T)}
    notes.append(
        f"{len(types)} token types, seen {least} times or more" + (", the most frequent." if len(types) == TYPES else ".")
    )
    frames, items = [], {"token types": _type_items(here.run, store, types), "experts": ran.experts}
    trees = _trees(signature["token types"], ran)
    for kind in wanted:
        frames += _figures(kind, read, ran, trees, items)
    found: dict[str, pd.DataFrame] = {}
    for what, x in signature.items():
        if seeds and len(x) >= 20:
            found[f"map of {what}"], rows = map_rows(x, items[what], what, seeds)
            frames.append(rows)
    figure = gather(frames)
    found = {"figures": figure, **found} | {k: v for k, v in items.items() if f"map of {k}" not in found}
    return Answer("signatures", "Routing signatures", _verdict(figure), here.run, found, dict.fromkeys(found, read.sql),
                  notes + few_units(figure), charts)  # fmt: skip


Tree = tuple[Ints, Floats]


class _Ran:
    """Every (document, type, expert) that ran, counted; experts of all routers numbered through."""

    def __init__(self, document: Ints, item: Ints, expert: Ints, n: Ints, types: int, experts: pd.DataFrame) -> None:
        self.document, self.item, self.expert, self.n = document, item, expert, n
        self.types, self.experts = types, experts

    def table(self, weights: Floats | None = None) -> Floats:
        """(types, experts) counts, documents weighed."""
        n = self.n if weights is None else self.n * weights[self.document]
        flat = np.bincount(self.item * len(self.experts) + self.expert, n, minlength=self.types * len(self.experts))
        return np.asarray(flat.reshape(self.types, len(self.experts)))


def _ran(read: Tokens, types: Ints) -> _Ran:
    rows = np.flatnonzero(np.isin(read.vocab_id, types))
    item = np.searchsorted(types, read.vocab_id[rows])
    start, parts, experts = 0, [], []
    width = int(read.scope.routers["experts"].sum())
    for router, row in read.scope.routers.iterrows():
        chosen = read.chosen[int(router)][rows].astype(np.int64)
        at, rank = np.nonzero((chosen >= 0) & (chosen < row["experts"]))
        cell = (read.document[rows[at]] * len(types) + item[at]) * width + start + chosen[at, rank]
        parts.append(np.stack(np.unique(cell, return_counts=True)))
        numbers = range(int(row["experts"]))
        experts += [{"stack": row["stack"], "layer": row["layer"], "router": router, "expert": e} for e in numbers]
        start += int(row["experts"])
    cell, n = np.concatenate(parts, axis=1)
    document, rest = np.divmod(cell, len(types) * width)
    return _Ran(document, rest // width, rest % width, n.astype(float), len(types), pd.DataFrame(experts))


def _hellinger(counts: Floats) -> Floats:
    return np.asarray(np.sqrt(st.shares(counts)))


def _type_items(run: int, store: Store, types: Ints) -> pd.DataFrame:
    text = spelling.words(store, run)
    return pd.DataFrame({"vocab_id": types, "text": [text.get(t, "") for t in types]})


def _figures(kind: Kind, read: Tokens, ran: _Ran, trees: list[Tree], items: dict[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Agreement of types with one partition; the labels of types and of experts go into `items`."""
    types = items["token types"]["vocab_id"].to_numpy()
    rows = np.flatnonzero((kind.code >= 0) & np.isin(read.vocab_id, types))
    counts = np.zeros((len(types), len(kind.names)))
    np.add.at(counts, (np.searchsorted(types, read.vocab_id[rows]), kind.code[rows]), 1.0)
    of_type = np.where(counts.sum(1) > 0, counts.argmax(1), -1)
    taken = st.shares(ran.table().T @ st.shares(counts))
    of_expert = (taken - st.shares(counts.sum(0))).argmax(1)
    for what, labels in (("token types", of_type), ("experts", of_expert)):
        names = np.array([*kind.names, ""])
        items[what][kind.name] = names[labels]
    dealt = None if kind.block is None else _dealt(kind, kind.block[rows], np.searchsorted(types, read.vocab_id[rows]), rows)
    return _agreement(kind, of_type, trees, ran, dealt)


def _dealt(kind: Kind, block: Ints, item: Ints, rows: Ints) -> list[Ints]:
    """(types,) each: the most frequent label of every type, labels dealt anew to the documents or sequences that hold them."""
    blocks, first, at = np.unique(block, return_index=True, return_inverse=True)
    own, rng = kind.code[rows][first], np.random.default_rng(0)
    counts = np.zeros((int(item.max()) + 1, len(blocks)))
    np.add.at(counts, (item, at), 1.0)
    drawn = (counts @ np.eye(len(kind.names))[rng.permutation(own)] for _ in range(PERMUTATIONS))
    return [np.where(table.sum(1) > 0, table.argmax(1), -1) for table in drawn]


def _trees(x: Floats, ran: _Ran) -> list[Tree]:
    """Items that ran, and their hierarchy: of everything, then of documents drawn again."""
    tables = (ran.table(w) for w in st.bootstrap_weights(int(ran.document.max()) + 1, DRAWS))
    again = (_hellinger(table) for table in tables)
    found = []
    for signature in (x, *again):
        seen = np.flatnonzero(signature.any(1))
        found.append((seen, tree(signature[seen])))
    return found


def _agreement(kind: Kind, labels: Ints, trees: list[Tree], ran: _Ran, dealt: list[Ints] | None = None) -> list[pd.DataFrame]:
    """Agreement of the hierarchy with `labels` (items,), −1 for none; `dealt` are its null, where labels are of documents."""
    clusters, values, null = len(np.unique(labels[labels >= 0])), [], np.zeros((0, 2))
    if clusters < 2 or (labels >= 0).sum() < 2 * clusters:
        return []
    for seen, hierarchy in trees:
        known = labels[seen] >= 0
        agree = Agreement(labels[seen][known], cut(hierarchy, clusters)[known])
        values.append(agree(labels[seen][known]))
        if not len(null):
            null = _null(labels, seen, known, agree, cut(hierarchy, clusters), ran, dealt)
    units = int(ran.document.max()) + 1
    said = NULL if dealt is None else WHOLE.format(kind.held)
    common: dict[str, Any] = {"n": int((labels >= 0).sum()), "units": units, "chance": 0.0, "null_name": said}
    common |= {"source": "Vinh et al. 2010; Hubert & Arabie 1985", "bounds": (-1.0, 1.0)}
    common |= {"where": {"subset": f"token types by {kind.name}"}}
    draws, names = np.array(values[1:]), ("adjusted mutual information", "adjusted Rand index")
    return [figures(name=n, value=values[0][i], draws=draws[:, i], null=null[:, i], **common) for i, n in enumerate(names)]


def _null(
    labels: Ints, seen: Ints, known: Ints, agree: Agreement, clusters: Ints, ran: _Ran, dealt: list[Ints] | None
) -> Floats:
    """(PERMUTATIONS, 2): both agreements of labels without a tie to routing."""
    if dealt is None:
        mixed = st.permuted(labels[seen][known], PERMUTATIONS, within=_alike(ran.table().sum(1)[seen][known]))
        return np.array([agree(shuffled) for shuffled in mixed])
    return np.array([Agreement(new[seen][known], clusters[known])(new[seen][known]) for new in dealt])


def _alike(size: Floats) -> Ints:
    """(items,): the tenth that an item's frequency is in; fewer parts where they would have under ten items."""
    parts = max(1, min(10, len(size) // 10))
    return np.asarray(np.argsort(np.argsort(size, kind="stable")) * parts // len(size))


def _verdict(frame: pd.DataFrame) -> Verdict:
    rows = clearest(frame[(frame["name"] == "adjusted mutual information") & ~frame["null"].str.contains("for contrast")])
    limits = "it does not show that a word changes experts with its label, and words of a label are alike in spelling too"
    if rows.empty:
        rows = frame[frame["name"].str.startswith("map")] if frame["name"].str.startswith("map").any() else frame
        follows = "Token types are placed by the experts that ran for them; no partition by labels of tokens could be compared"
        return verdict(follows, rows.iloc[0], frame, limits, rows, analyze("syntax"))
    found = rows[rows["q"] <= saying.FDR]
    said = ", ".join(
        f"{r['subset'].split(' by ')[1]} {saying.amount(r, 'of 1')}" for _, r in (found if len(found) else rows).iterrows()
    )
    agree = "agree" if len(found) else "agree no more than shuffled labels do"
    follows = f"Clusters of token types that are routed alike {agree} with their labels (adjusted mutual information: {said})"
    return verdict(follows, rows.iloc[0], frame, limits, rows, analyze("syntax"), "partition")


def charts(answer: Answer) -> dict[str, Chart]:
    """The maps, one panel per seed, coloured by the first kind of label."""
    drawn = {}
    for name, frame in answer.frames.items():
        if name.startswith("map of"):
            kinds = [c for c in frame if c not in ("seed", "x", "y", "vocab_id", "text", "stack", "layer", "router", "expert")]
            shown = [c for c in ("text", "layer", "expert", *kinds) if c in frame]
            plain = frame[["seed", "x", "y", *shown]].astype({c: str for c in ("layer", "expert") if c in frame})
            drawn[name] = chart(plain, answer.sql[name], partial(_points, title=f"UMAP {name}, by seed", kinds=kinds))
    return drawn


def _points(plain: pd.DataFrame, title: str, kinds: list[str]) -> Any:
    import altair as alt

    points = alt.Chart(plain).mark_circle(size=28).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(zero=False)), y=alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False)),
        color=alt.Color(f"{kinds[0]}:N"), tooltip=[f"{c}:N" for c in plain if c not in ("seed", "x", "y")])  # fmt: skip
    return points.properties(width=240, height=240).facet("seed:N", title=title)
