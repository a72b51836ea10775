"""Specialization by a label of sequences (domain, class, language, ...), per router.

* `domain specialization` (OLMoE 2409.02060, 5.3): N_ED / N_D, the share of the tokens of D whose chosen experts hold E;
  chance k/E. `share of load by label`: N_ED / sum_E N_ED, to be compared with the expert's share over all labels.
* `I(label; expert)` in bits: plug-in, Miller-Madow, and less its mean under the null; `NMI`: over the mean of both entropies;
  PMI log2 P(E, D) / P(E) P(D) per cell.
* `JSD`: Jensen-Shannon divergence of the loads of two labels, bits; mean over pairs, and each pair. `Jensen-Shannon distance`:
  its root (Endres & Schindelin 2003), mean over pairs.

Null: the labels dealt anew to the documents, which keeps each document's routing whole. Intervals: documents drawn anew
within their label.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array
from .._shared.answer import figures
from .._shared.document_counts import Table

NULL = "labels dealt anew to documents"
OLMOE = "OLMoE 2409.02060, section 5.3"
KEPT = 100_000_000  # cells of dealt labels that are kept from router to router (400 MB)
FEW = 999  # permutations for what a router has few of; cells, of which there are many, need finer p values


def by_label(table: Table, tokens: Array, kind: str, draws: int) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures of one router, and its cells; `tokens` (units,) counts decisions, `draws` permutations."""
    counts, home = table.counts.sum(1), table.home
    labels, experts = len(table.labels), counts.shape[1]
    draws = int(np.clip(4_000_000 // (labels * experts), 199, draws))
    weights = st.bootstrap_weights(len(home), strata=home)
    hot = np.eye(labels)[home]
    boot, boot_tokens = (_permuted(weights[:, :, None] * hot, x) for x in (counts, tokens[:, None]))
    null_tables, null_tokens = _null(home, labels, draws, counts, tokens)
    total, n = hot.T @ counts, hot.T @ tokens
    units = hot.sum(0).astype(int)
    label, expert = (x.ravel() for x in np.indices((labels, experts)))
    where = table.where | {"expert": expert, "subset": np.array([f"{kind}={x}" for x in table.labels])[label]}
    common: dict[str, Any] = {"null_name": NULL, "n": n[label].astype(int), "units": units[label], "bounds": (0, 1)}
    special = figures(
        where, "domain specialization", total / n[:, None], source=OLMOE, estimator="top-k",
        chance=counts.sum() / n.sum() / experts, draws=boot / np.maximum(boot_tokens, 1),
        null=null_tables / np.maximum(null_tokens, 1), side="both", **common,
    )  # fmt: skip
    overall = st.shares(total.sum(0))[expert]
    share = figures(
        where, "share of load by label", st.shares(total), source="share of the label's assignments", chance=overall,
        draws=st.shares(boot), null=st.shares(null_tables), side="both", **common,
    )  # fmt: skip
    some = null_tables[:FEW]
    shared = _information(table, kind, total, boot, some, int(n.sum()), len(home))
    return [special, share, *shared, *_divergences(table, kind, total, boot, some, int(n.sum()), len(home))], _cells(
        share, overall
    )


_CELL = ["stack", "layer", "router", "expert", "subset", "value", "overall", "lift", "pmi", "ci_low", "ci_high", "p", "n"]


def _cells(share: pd.DataFrame, overall: Array) -> pd.DataFrame:
    """A label's share of an expert's load beside the expert's share `overall` (cells,), by every label."""
    cells = share.assign(overall=overall, lift=share["value"] / np.where(overall > 0, overall, np.nan))
    cells["pmi"] = np.log2(cells["lift"].clip(lower=1e-12))
    return cells[[*_CELL, "units"]]


def _permuted(weights: Array, counts: Array) -> Array:
    """(draws, labels, cells) from weights (draws, units, labels) and counts (units, cells)."""
    flat = weights.transpose(0, 2, 1).reshape(-1, weights.shape[1]).astype(np.float32)
    return (flat @ counts.astype(np.float32)).astype(float).reshape(len(weights), weights.shape[2], -1)


def _null(home: Array, labels: int, draws: int, counts: Array, tokens: Array) -> tuple[Array, Array]:
    """Tables and token counts by label when labels are dealt anew, in parts that fit in memory."""
    cells = np.c_[counts, tokens].astype(np.float32)
    parts = _permutations(home.astype(np.int32).tobytes(), labels, draws)
    both = np.concatenate([part.reshape(-1, len(home)) @ cells for part in parts]).astype(float)
    both = both.reshape(-1, labels, cells.shape[1])
    return both[:, :, :-1], both[:, :, -1:]


def _permutations(home: bytes, labels: int, draws: int) -> Iterable[Array]:
    """Parts of (draws, labels, units) of 0 and 1: labels dealt anew to documents; kept for the next router if not too large."""
    units = len(home) // 4
    return _kept(home, labels, draws) if draws * labels * units <= KEPT else _parts(home, labels, draws)


@lru_cache(maxsize=1)
def _kept(home: bytes, labels: int, draws: int) -> list[Array]:
    return list(_parts(home, labels, draws))


def _parts(home: bytes, labels: int, draws: int) -> Iterator[Array]:
    dealt = st.permuted(np.frombuffer(home, dtype=np.int32), draws)
    for part in np.array_split(dealt, max(1, draws // 500)):
        yield (part[:, None, :] == np.arange(labels)[:, None]).astype(np.float32)


def _information(table: Table, kind: str, total: Array, boot: Array, null: Array, n: int, units: int) -> list[pd.DataFrame]:
    where = table.where | {"subset": kind}
    common: dict[str, Any] = {"null_name": NULL, "n": n, "units": units, "chance": 0.0, "bounds": (0, np.inf)}
    name, base, bias = "I(label; expert) (bits)", st.mutual_information(null), st.mutual_information(null).mean()
    plug, draws = st.mutual_information(total), st.mutual_information(boot)
    norm = [st.normalized_information(x) for x in (total, boot, null)]
    miller = [st.miller_madow(x) for x in (total, boot, null)]
    return [
        figures(where, name, plug, estimator="plug-in", source="Shannon 1948", draws=draws, null=base, **common),
        figures(
            where, name, miller[0], estimator="Miller-Madow", source="Miller 1955", draws=miller[1], null=miller[2], **common
        ),
        figures(
            where, name, plug - bias, estimator="less null mean", source="Shannon 1948", draws=draws, null=base - bias, **common
        ),
        figures(where, "NMI(label; expert)", norm[0], source="over the mean entropy", draws=norm[1], null=norm[2], **common),
    ]


def _divergences(table: Table, kind: str, total: Array, boot: Array, null: Array, n: int, units: int) -> list[pd.DataFrame]:
    pairs = list(combinations(range(len(table.labels)), 2))
    pairs = pairs if len(pairs) <= 45 else []
    a, b = ([p[i] for p in pairs] for i in (0, 1))
    if not pairs:
        return []
    value, draws, base = (st.jensen_shannon(x[..., a, :], x[..., b, :]) for x in (total, boot, null))
    names = [f"{kind}={table.labels[i]}, {table.labels[j]}" for i, j in pairs]
    pair_units = np.array([int(np.isin(table.home, pair).sum()) for pair in pairs])
    common: dict[str, Any] = {"source": "Lin 1991", "null_name": NULL, "chance": 0.0, "n": n, "bounds": (0, 1)}
    single = figures(
        table.where | {"subset": names},
        "JSD (bits)",
        value,
        estimator="pair",
        draws=draws,
        null=base,
        units=pair_units,
        **common,
    )
    whole, rows = table.where | {"subset": kind}, [single]
    for name, form in (("JSD (bits)", np.asarray), ("Jensen-Shannon distance", np.sqrt)):
        means: dict[str, Any] = {"draws": form(draws).mean(1), "null": form(base).mean(1), "units": units}
        rows.append(figures(whole, name, form(value).mean(), estimator="mean over pairs", **means, **common))
    return rows
