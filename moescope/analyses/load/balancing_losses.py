"""Balancing losses and top-k mass, which need the probabilities of all experts: only where router logits are stored.

With f_e the share of tokens whose first choice is e, F_e the share whose top k holds e, P_e the mean probability of e:

* Switch (2101.03961, without its factor alpha): E sum f_e P_e; 1 when even.
* GShard (2006.16668): (1/E) sum f_e P_e; its count is of first choices: Switch over E squared, 1/E^2 when even.
* Transformers (load_balancing_loss_func): E sum F_e P_e, with all layers joined first: k when even. Where the layers lean
  different ways their average is even, so `joined` can be small while `by layer` is large.
* top-k mass: the probability of the chosen experts together, mean over tokens; chance k/E.

Intervals: documents drawn again, the same ones for choices and probabilities.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.arrays.probabilities import SCORES, probabilities
from .._shared.modality_entropies import global_, importance
from .._shared.scope import Scope, place

BATCH = 16384


def figures_of(here: Scope, notes: list[str]) -> list[pd.DataFrame]:
    """The losses of every router whose logits are stored; a note says which are not, and how to get them."""
    stored = {router for (router,) in here.store.rows(f"select distinct router from logits where run = {here.run}")}
    known = {r: row for r, row in here.routers.iterrows() if r in stored and row["score"] in SCORES}
    if missing := len(here.routers) - len(known):
        notes.append(
            f"Balancing losses, top-k mass and global entropy need all probabilities, and {missing} of "
            f"{len(here.routers)} routers have none stored: trace with router logits to get them."
        )
    units = here.store.sql(_places(here)).df()
    modalities = sorted(units["modality"].unique())
    count = int(units["unit"].max()) + 1 if len(units) else 0
    sums = {router: _sums(here, row, modalities, count) for router, row in known.items()}
    rows = [frame for router, found in sums.items() for frame in _rows(known[router], found)]
    return rows + _joined(known, sums) + _by_modality(known, sums, modalities)


def _places(here: Scope) -> str:
    """A row per token: its document, and its modality."""
    return f"""with units as ({here.units_sql(groups=st.GROUPS)})
select token, units.unit, t.unit as modality from tokens t join units using (sequence) where t.run = {here.run}"""


def _sums(here: Scope, row: pd.Series, modalities: list[str], units: int) -> Array:
    """(modalities, units, 3 E + 2): probabilities, first choices, all choices by expert; mass of the chosen; tokens."""
    experts, places = int(row["experts"]), len(modalities) * units
    total = np.zeros((places, 3 * experts + 2))
    sql = f"""with places as ({_places(here)})
select any_value(logits) as logits, list(expert) as chosen, list(rank) as ranks, any_value(unit) as unit,
  any_value(modality) as modality
from logits l join assignments a using (run, forward, router, iteration, token) join places using (token)
where l.run = {here.run} and router = {row["router"]} group by l.forward, l.iteration, l.token"""
    for batch in here.store.sql(sql).to_arrow_reader(BATCH):
        p = probabilities(np.stack(batch["logits"].to_numpy(zero_copy_only=False))[:, :experts], row["score"])
        lengths = np.diff(batch["chosen"].offsets.to_numpy())
        token = np.repeat(np.arange(len(p)), lengths)
        chosen, ranks = (batch[c].flatten().to_numpy().astype(int) for c in ("chosen", "ranks"))
        token, chosen, ranks = (x[chosen < experts] for x in (token, chosen, ranks))
        hot = np.zeros((2, len(p), experts))
        hot[0, token[ranks == 0], chosen[ranks == 0]] = 1
        hot[1, token, chosen] = 1
        kind = np.searchsorted(modalities, batch["modality"].to_numpy(zero_copy_only=False).astype(str))
        place = kind * units + batch["unit"].to_numpy()
        one = sparse.csr_matrix((np.ones(len(p)), (place, np.arange(len(p)))), shape=(places, len(p)))
        total += one @ np.c_[p, hot[0], hot[1], (p * hot[1]).sum(1), np.ones(len(p))]
    return total.reshape(len(modalities), units, -1)


def switch_loss(first: Any, probability: Any) -> Any:
    """E sum f P of shares of first choices and mean probabilities, experts last."""
    return first.shape[-1] * np.sum(first * probability, axis=-1)


def _parts(sums: Array) -> tuple[Array, Array, Array, Array]:
    """P, f, F (..., E) and top-k mass (...) from sums (..., 3 E + 2)."""
    mean = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
    e = mean.shape[-1] // 3
    return mean[..., :e], mean[..., e : 2 * e], mean[..., 2 * e : 3 * e], mean[..., -1]


def _rows(row: pd.Series, sums: Array) -> list[pd.DataFrame]:
    e, k = int(row["experts"]), float(_parts(sums.sum((0, 1)))[2].sum())

    def switch(x: Array) -> Any:
        return switch_loss(_parts(x)[1], _parts(x)[0])

    wanted: list[tuple[str, str, Any, float, str]] = [
        ("balancing loss", "Switch", switch, 1.0, "Switch 2101.03961, alpha = 1"),
        ("balancing loss", "GShard", lambda x: switch(x) / e**2, 1 / e**2, "GShard 2006.16668, algorithm 1"),
        ("balancing loss", "Transformers, by layer", _transformers, k, "load_balancing_loss_func of one layer"),
        ("top-k mass", "definition", lambda x: _parts(x)[3], k / e, "probability of the chosen experts"),
    ]
    return [_figure(place(row), *figure, [sums]) for figure in wanted]


def _transformers(x: Array) -> Any:
    return switch_loss(_parts(x)[2], _parts(x)[0])


def _figure(
    where: Any, name: str, estimator: str, statistic: Any, chance: float, source: str, sums: list[Array]
) -> pd.DataFrame:
    """A loss of sums (modalities, units, 3 E + 2), those of several routers added up."""
    by_unit = np.sum([s.sum(0) for s in sums], axis=0)
    draws = statistic(st.resampled(st.bootstrap_weights(len(by_unit)), by_unit))
    null = "none: a loss beside its value when even"
    units, n = int((by_unit[:, -1] > 0).sum()), int(by_unit[:, -1].sum())
    value = statistic(by_unit.sum(0))
    return figures(where, name, value, source=source, estimator=estimator, chance=chance, draws=draws, null_name=null,
                   bounds=(0, np.inf), n=n, units=units)  # fmt: skip


def _joined(known: dict[int, pd.Series], sums: dict[int, Array]) -> list[pd.DataFrame]:
    """Transformers' form: the layers of a stack joined along the tokens."""
    rows = []
    for stack in sorted({row["stack"] for row in known.values()}):
        parts = [sums[r] for r, row in known.items() if row["stack"] == stack]
        if len({p.shape for p in parts}) > 1:
            continue
        k = float(_parts(np.sum(parts, axis=(0, 1, 2)))[2].sum())
        name = ("balancing loss", "Transformers, layers joined", _transformers, k, "load_balancing_loss_func")
        rows.append(_figure({"stack": stack}, *name, parts))
    return rows


def _by_modality(known: dict[int, pd.Series], sums: dict[int, Array], modalities: list[str]) -> list[pd.DataFrame]:
    """Global entropy per modality, importance over all."""
    rows = []
    for router, total in sums.items():
        e = total.shape[-1] // 3
        rows += [global_(known[router], m, t[:, :e], t[:, -1]) for m, t in zip(modalities, total) if t[:, -1].any()]
        rows.append(importance(known[router], "all probabilities", total.sum(0)[:, :e], total.sum(0)[:, -1]))
    return rows
