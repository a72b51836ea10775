"""Tokens of a run with how deep they went, and with one kind of label: arrays of at most so many tokens, whole sequences."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from ...store import spelling
from ...store.schema import quote
from .._shared.scope import Scope

LIMIT = 200_000  # tokens; more add little to intervals over documents, and cost time
FEWEST = 10  # occurrences of a vocabulary id that is looked at by itself
MOST = 100  # values of a label
PLACES = (0, 1, 4, 16, 64, 256, 1024)  # where classes of positions begin


@dataclass(frozen=True)
class Labels:
    """`code` (tokens,), -1 for none; `names` of the codes; `whole`: no document has two, so they are dealt whole."""

    kind: str
    code: Array
    names: list[str]
    whole: bool


@dataclass(frozen=True)
class Deep:
    """`rows`: frame (token, sequence, unit, position, vocab_id, depth, n), n forwards in which the token went `depth` deep."""

    here: Scope
    stack: str
    rows: pd.DataFrame

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row per token."""
        return self.rows.drop_duplicates("token").drop(columns=["depth", "n"]).reset_index(drop=True)

    @cached_property
    def at(self) -> Array:
        """(rows,): which of `tokens`."""
        return np.searchsorted(self.tokens["token"].to_numpy(), self.rows["token"].to_numpy())

    @property
    def depths(self) -> int:
        """One more than the largest depth."""
        return int(self.rows["depth"].max()) + 1

    def counts(self, code: Array, values: int) -> Array:
        """(units, values, depths): forwards of tokens by document, label and depth."""
        label, unit = code[self.at], self.rows["unit"].to_numpy()
        known = label >= 0
        cell = (unit[known] * values + label[known]) * self.depths + self.rows["depth"].to_numpy()[known]
        size = (int(unit.max()) + 1) * values * self.depths
        return np.bincount(cell, self.rows["n"].to_numpy()[known], size).reshape(-1, values, self.depths)

    def shuffled(self, code: Array, values: int, draws: int) -> Array:
        """(draws, values, depths): the labels shuffled among the labelled tokens of each sequence."""
        known = np.flatnonzero(code >= 0)
        rows = np.flatnonzero(code[self.at] >= 0)
        place = np.searchsorted(known, self.at[rows])
        depth, n = self.rows["depth"].to_numpy()[rows], self.rows["n"].to_numpy()[rows]
        found = [
            np.bincount(code[known][order][place] * self.depths + depth, n, values * self.depths)
            for order in st.orders(self.tokens["sequence"].to_numpy()[known], draws)
        ]
        return np.stack(found).reshape(draws, values, self.depths)

    def labels(self, kind: str, level: str) -> Labels:
        """Labels of one kind; a token with several keeps the first in the alphabet."""
        con, key = self.here.store.con, "token" if level == "token" else "sequence"
        con.register("deep_tokens", self.tokens[["token", "sequence"]])
        found = con.sql(f"select d.token, min(l.label) as label from {level}_labels l join deep_tokens d using ({key}) "
                        f"where l.kind = {quote(kind)} group by 1").df()  # fmt: skip
        con.unregister("deep_tokens")
        names = sorted(found["label"].unique())
        code = self.tokens["token"].map(dict(zip(found["token"], np.searchsorted(names, found["label"])))).fillna(-1)
        return self._made(kind, code.to_numpy(int), [str(name) for name in names])

    def positions(self) -> Labels:
        """Classes of positions in the sequence."""
        code = np.searchsorted(PLACES, self.tokens["position"].to_numpy(int), "right") - 1
        ends = [*PLACES[1:], None]
        names = [str(a) if b == a + 1 else f"{a}–{b - 1}" if b else f"{a}–" for a, b in zip(PLACES, ends)]
        return self._made("position", code, names[: int(code.max()) + 1])

    def words(self) -> Labels:
        """Vocabulary ids that occur often enough, as text."""
        ids = self.tokens["vocab_id"].astype("Int64")
        often = ids.value_counts()
        kept = sorted(often.index[often >= FEWEST])
        text = spelling.words(self.here.store, self.here.run)
        code = ids.map({token: i for i, token in enumerate(kept)}).fillna(-1).to_numpy(int)
        return self._made("token", code, [str(text.get(token) or f"#{token}") for token in kept])

    def _made(self, kind: str, code: Array, names: list[str]) -> Labels:
        known = code >= 0
        pairs = np.unique(np.stack([self.tokens["unit"].to_numpy()[known], code[known]]), axis=1)
        return Labels(kind, code, names, len(np.unique(pairs[0])) == pairs.shape[1] and kind not in ("token", "position"))


def depths_sql(here: Scope, share: float) -> str:
    """Rows (token, sequence, unit, stack, position, vocab_id, depth, n) of a share of the sequences, dealt by hash."""
    return f"""with units as ({here.units_sql()})
select t.token, t.sequence, u.unit, s.stack, t.position, t.vocab_id, d.depth::int as depth, count(*)::int as n
from token_depth d join tokens t using (token) join units u using (sequence) join sequences s on s.sequence = t.sequence
where d.run = {here.run} and hash(t.sequence) % 10000 < {round(share * 10000)} group by all order by t.token, depth"""


def read(here: Scope, notes: list[str]) -> tuple[list[Deep], str]:
    """The tokens that routers of depth looked at, a stack each; and the query."""
    every = here.store.rows(f"select count(distinct token) from token_depth where run = {here.run}")[0][0]
    share = min(1.0, LIMIT / max(every, 1))
    sql = depths_sql(here, share)
    frame = here.store.sql(sql).df()
    if share < 1:
        notes.append(f"{frame['token'].nunique()} of {every} tokens, whole sequences chosen by hash, are counted.")
    frame["stack"] = frame["stack"].fillna("")
    return [Deep(here, stack, part.reset_index(drop=True)) for stack, part in frame.groupby("stack")], sql
