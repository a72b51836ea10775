"""Balancing losses and top-k mass, which need the probabilities of all experts: only where router logits are stored.

With f_e the share of tokens whose first choice is e, F_e the share whose top k holds e, P_e the mean probability of e:

* Switch (2101.03961, without its factor alpha): E sum f_e P_e; 1 when even.
* GShard (2006.16668): (1/E) sum f_e P_e; its count is of first choices: Switch over E squared, 1/E^2 when even.
* Transformers (load_balancing_loss_func): E sum F_e P_e, with all layers joined first: k when even. Where the layers lean
  different ways their average is even, so `joined` can be small while `by layer` is large.
* top-k mass: the probability of the chosen experts together, mean over tokens; chance k/E.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit, softmax

from ._answer import figures
from ._entropies import global_, importance
from ._scope import Scope, place

BATCH = 65536


def figures_of(here: Scope, notes: list[str]) -> list[pd.DataFrame]:
    """The losses of every router whose logits are stored; a note says which are not, and how to get them."""
    stored = {router for (router,) in here.store.rows(f"select distinct router from logits where run = {here.run}")}
    known = {
        r: row for r, row in here.routers.iterrows() if r in stored and row["score"] in ("softmax", "sigmoid", "probabilities")
    }
    if missing := len(here.routers) - len(known):
        notes.append(
            f"Balancing losses, top-k mass and global entropy need all probabilities, and {missing} of "
            f"{len(here.routers)} routers have none stored: trace with router logits to get them."
        )
    units = here.store.sql(_places(here)).df()
    modalities = sorted(units["modality"].unique())
    documents = Documents(modalities, units["unit"].max() + 1 if len(units) else 0, {})
    sums = {router: _sums(here, router, row, documents) for router, row in known.items()}
    return [_rows(known[r], *s) for r, s in sums.items()] + _joined(known, sums) + documents.figures(known)


@dataclass
class Documents:
    """Probabilities and tokens by modality and document, `sums[router]` (modalities, units, E + 1), tokens last."""

    modalities: list[str]
    units: int
    sums: dict[int, Any]

    def add(self, router: int, place: Any, p: Any) -> None:
        """`p` (tokens, E); `place` (tokens,) numbers modality and document together."""
        places = len(self.modalities) * self.units
        one = sparse.csr_matrix((np.ones(len(p)), (place, np.arange(len(p)))), shape=(places, len(p)))
        total = self.sums.setdefault(router, np.zeros((places, p.shape[1] + 1)))
        total += one @ np.c_[p, np.ones(len(p))]

    def figures(self, known: dict[int, pd.Series]) -> list[pd.DataFrame]:
        """Global entropy per modality, importance over all."""
        rows = []
        for router, total in self.sums.items():
            each = total.reshape(len(self.modalities), self.units, -1)
            rows += [global_(known[router], m, t[:, :-1], t[:, -1]) for m, t in zip(self.modalities, each) if t[:, -1].any()]
            rows.append(importance(known[router], "all probabilities", each.sum(0)[:, :-1], each.sum(0)[:, -1]))
        return rows


def _places(here: Scope) -> str:
    """A row per token: its document, and its modality."""
    return f"""with units as ({here.units_sql()})
select token, units.unit, t.unit as modality from tokens t join units using (sequence) where t.run = {here.run}"""


def _sums(here: Scope, router: int, row: pd.Series, documents: Documents) -> tuple[Any, Any, Any, float, int]:
    """First choices, choices and probabilities by expert, mass of the chosen, tokens."""
    experts = int(row["experts"])
    first, every, probability = (np.zeros(experts) for _ in range(3))
    mass, n = 0.0, 0
    sql = f"""with places as ({_places(here)})
select any_value(logits) as logits, list(expert) as chosen, list(rank) as ranks, any_value(unit) as unit,
  any_value(modality) as modality
from logits l join assignments a using (run, forward, router, iteration, token) join places using (token)
where l.run = {here.run} and router = {router} group by l.forward, l.iteration, l.token"""
    for batch in here.store.sql(sql).to_arrow_reader(BATCH):
        p = _probabilities(np.stack(batch["logits"].to_numpy(zero_copy_only=False))[:, :experts], row["score"])
        lengths = np.diff(batch["chosen"].offsets.to_numpy())
        token = np.repeat(np.arange(len(p)), lengths)
        chosen, ranks = (batch[c].flatten().to_numpy().astype(int) for c in ("chosen", "ranks"))
        token, chosen, ranks = (x[chosen < experts] for x in (token, chosen, ranks))
        first += np.bincount(chosen[ranks == 0], minlength=experts)
        every += np.bincount(chosen, minlength=experts)
        probability += p.sum(0)
        kind = np.searchsorted(documents.modalities, batch["modality"].to_numpy(zero_copy_only=False).astype(str))
        documents.add(router, kind * documents.units + batch["unit"].to_numpy(), p)
        mass += p[token, chosen].sum()
        n += len(p)
    return first, every, probability, mass, n


def _probabilities(logits: Any, score: str) -> Any:
    logits = logits.astype(float)
    if score == "softmax":
        return softmax(logits, axis=1)
    p = expit(logits) if score == "sigmoid" else logits
    return p / p.sum(1, keepdims=True)


def switch_loss(first: Any, probability: Any) -> float:
    """E sum f P of shares of first choices and mean probabilities."""
    return float(len(first) * np.sum(first * probability))


def _rows(row: pd.Series, first: Any, every: Any, probability: Any, mass: float, n: int) -> pd.DataFrame:
    where = place(row)
    e, k = len(first), every.sum() / n
    f, big, p = first / n, every / n, probability / n
    wanted = [("balancing loss", "Switch", switch_loss(f, p), 1.0, "Switch 2101.03961, alpha = 1"),
              ("balancing loss", "GShard", switch_loss(f, p) / e**2, 1 / e**2, "GShard 2006.16668, algorithm 1"),
              ("balancing loss", "Transformers, by layer", switch_loss(big, p), k, "load_balancing_loss_func of one layer"),
              ("top-k mass", "definition", mass / n, k / e, "probability of the chosen experts")]  # fmt: skip
    return pd.concat([_figure(where, *figure, n=n) for figure in wanted], ignore_index=True)


def _figure(where: Any, name: str, estimator: str, value: float, chance: float, source: str, n: int) -> pd.DataFrame:
    null = "none: a loss beside its value when even"
    return figures(where, name, value, source=source, estimator=estimator, chance=chance, null_name=null, n=n)


def _joined(known: dict[int, pd.Series], sums: dict[int, Any]) -> list[pd.DataFrame]:
    """Transformers' form: the layers of a stack joined along the tokens."""
    rows = []
    for stack in sorted({row["stack"] for row in known.values()}):
        parts = [sums[r] for r, row in known.items() if row["stack"] == stack]
        if len({len(p[0]) for p in parts}) > 1:
            continue
        n = sum(p[4] for p in parts)
        every, probability = sum(p[1] for p in parts) / n, sum(p[2] for p in parts) / n
        value = switch_loss(every, probability)
        name = ("balancing loss", "Transformers, layers joined")
        rows.append(_figure({"stack": stack}, *name, value, every.sum(), "load_balancing_loss_func", n))
    return rows
