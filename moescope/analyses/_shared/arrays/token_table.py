"""Tokens of a run as arrays: document, vocabulary id, labels, and what every router chose; at most so many, by document."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ....errors import AnalysisError
from .. import topics
from ..scope import Scope

Ints = np.ndarray
LIMIT = 50_000  # tokens; more add little to intervals over documents, and cost time
FORM = ("upos", "deprel", "feats")
MEANING = ("supersense", "sense", "topic", "cluster", "domain", "genre", "class")


@dataclass(frozen=True)
class Kind:
    """One kind of label: `code` (tokens,), −1 for none; `names` of the codes; what its permutation holds together."""

    name: str
    code: Ints
    names: list[str]
    block: Ints | None  # document or sequence of each token where a whole one has one label
    held: str  # token | sequence | document

    @property
    def side(self) -> str:
        """form, meaning or other."""
        return "form" if self.name in FORM else "meaning" if self.name in MEANING else "other"


@dataclass(frozen=True)
class Tokens:
    """`frame`: token, sequence, document (from 0), stack, vocab_id (−1 for none); one row per token."""

    scope: Scope
    frame: pd.DataFrame
    sql: str
    notes: list[str]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def document(self) -> Ints:
        """(tokens,)"""
        return np.asarray(self.frame["document"].to_numpy())

    @property
    def vocab_id(self) -> Ints:
        """(tokens,), −1 for none."""
        return np.asarray(self.frame["vocab_id"].to_numpy())

    @cached_property
    def kinds(self) -> dict[str, int]:
        """Kinds of labels of tokens and sequences with two labels or more, and how many; clusters where none is of meaning."""
        found = {kind: n for kind, n in (self.scope.kinds("sequence") | self.scope.kinds("token")).items() if n > 1}
        return found if self.made is None else found | {topics.NAME: int(self.made.max()) + 1}

    @cached_property
    def made(self) -> Ints | None:
        """Clusters of documents (tokens,), where the data has no label of meaning and documents are enough."""
        known = self.scope.kinds("sequence") | self.scope.kinds("token")
        if any(known.get(kind, 0) > 1 for kind in MEANING):
            return None
        return topics.clusters(self.vocab_id, self.document)

    def kind(self, name: str) -> Kind:
        """Labels of one kind. A token with several labels of a kind keeps the first in the alphabet."""
        if name == topics.NAME and self.made is not None:
            return Kind(name, self.made.astype(np.int32), [f"cluster {n}" for n in range(self.made.max() + 1)],
                        self.document, "document")  # fmt: skip
        table, key = ("token_labels", "token") if name in self.scope.kinds("token") else ("sequence_labels", "sequence")
        labels = _joined(self.scope, self.frame, f"select d.row, min(label) as label from {table} l join drawn d using ({key}) "
                         "where kind = ? group by 1", [name])  # fmt: skip
        code, names = pd.factorize(labels["label"].to_numpy(), sort=True)
        found = np.full(len(self), -1, dtype=np.int32)
        found[labels["row"].to_numpy()] = code
        for held in ("document", "sequence"):
            block = np.asarray(self.frame[held].to_numpy())
            if _constant(found, block):
                return Kind(name, found, list(names), block, held)
        return Kind(name, found, list(names), None, "token")

    @cached_property
    def chosen(self) -> dict[int, Ints]:
        """By router (tokens, k): experts that ran, by weight, −1 for none; the first iteration of a recursive model."""
        sql = f"""select a.router, d.row, coalesce(a.rank, a.slot) as rank, a.expert 
from assignments a join drawn d using (token)
where a.run = {self.scope.run} and a.iteration = 0 and not a.dropped and coalesce(a.rank, a.slot) < 64"""
        columns = _joined(self.scope, self.frame, sql)
        columns = columns.sort_values("router", kind="stable")
        edges = (
            columns["router"].searchsorted(self.scope.routers.index, "left"),
            columns["router"].searchsorted(self.scope.routers.index, "right"),
        )
        found = {}
        for router, start, stop in zip(self.scope.routers.index, *edges):
            part = columns.iloc[start:stop]
            experts = np.full((len(self), int(part["rank"].max()) + 1 if len(part) else 1), -1, dtype=np.int16)
            experts[part["row"].to_numpy(), part["rank"].to_numpy()] = part["expert"].to_numpy()
            found[int(router)] = experts
        return found

    def first(self) -> Iterator[tuple[dict[str, object], Ints]]:
        """Every router and its first choice for every token (tokens,), −1 for none. AnalysisError where ranks are unknown."""
        self.scope.need_ranks("this question")
        for router, row in self.scope.routers.iterrows():
            yield {"stack": row["stack"], "layer": row["layer"], "router": router}, self.chosen[int(router)][:, 0]


def _joined(scope: Scope, frame: pd.DataFrame, sql: str, params: list[str] | None = None) -> pd.DataFrame:
    con = scope.store.con
    con.register("drawn", frame[["token", "sequence"]].assign(row=np.arange(len(frame))))
    try:
        return con.execute(sql, params or []).df()
    finally:
        con.unregister("drawn")


def _constant(code: Ints, block: Ints) -> bool:
    """Whether no block has two labels, and there are fewer blocks than tokens."""
    known = code >= 0
    pairs = np.unique(np.stack([block[known], code[known]]), axis=1)
    blocks = np.unique(pairs[0])
    return len(pairs[0]) == len(blocks) < known.sum() and len(blocks) > 1


def tokens(scope: Scope, limit: int = LIMIT) -> Tokens:
    """At most about `limit` text tokens of whole documents drawn by hash (of one document at most a twentieth of the limit)."""
    sql = f"""with units as ({scope.units_sql()}),
numbered as (
  select t.token, t.sequence, u.unit, s.stack, coalesce(t.vocab_id::bigint, -1) as vocab_id,
         row_number() over (partition by u.unit order by hash(t.sequence, t.position)) as place
  from tokens t join units u using (sequence) join sequences s using (sequence)
  where t.run = {scope.run} and t.unit = 'text' and not coalesce(t.special, false)),
kept as (from numbered where place <= {max(1, limit // 20)}),
documents as (select unit, sum(count(*)) over (order by hash(unit), unit) as so_far from kept group by unit)
select token, sequence, unit as document, stack, vocab_id from kept join documents using (unit)
where so_far <= {limit} order by token"""
    frame = scope.store.sql(sql).df()
    if frame.empty:
        raise AnalysisError(f"run {scope.run} holds no text tokens (images have none); this question is about text: trace some")
    everything = scope.store.rows(
        f"select count(*) from tokens where run = {scope.run} and unit = 'text' and not coalesce(special, false)"
    )
    frame["document"] = np.unique(frame["document"], return_inverse=True)[1]
    notes = []
    if len(frame) < everything[0][0]:
        notes.append(
            f"{len(frame)} of {everything[0][0]} tokens, whole documents drawn by hash, are counted; `limit` changes that."
        )
    return Tokens(scope, frame, sql, notes)
