"""Specialization by a label of sequences (domain, class, language, ...), per router.

* `domain specialization` (OLMoE 2409.02060, 5.3): N_ED / N_D, the share of the tokens of D whose chosen experts hold E;
  chance k/E. `share of load by label`: N_ED / sum_E N_ED, to be compared with the expert's share over all labels.
* `I(label; expert)` in bits: plug-in, Miller-Madow, and less its mean under the null; `NMI`: over the mean of both entropies;
  PMI log2 P(E, D) / P(E) P(D) per cell.
* `JSD`: Jensen-Shannon divergence of the loads of two labels, bits; mean over pairs, and each pair. `Jensen-Shannon distance`:
  its root (Endres & Schindelin 2003), mean over pairs.

Null: the labels dealt anew to the documents, which keeps each document's routing whole. As documents differ in length, the null
of information is scaled to the length of each label's documents (`statistics.Grouped.noise`), and p is not
of the plain figure but of the label's share less that of all other documents, over the error of that difference
(`statistics.studentized`); of information and divergence, of the sum of these squared. A cell is counted among the permuted
values of its label's cells in all routers (`statistics.Pool`), so that a lone specialist can be told. Intervals: documents
drawn anew within their label.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...statistics import Array, Pool
from .._shared.answer import figures, information
from .._shared.arrays.document_counts import Table
from .._shared.dealt_labels import NULL, Dealt, Pooled, deal

OLMOE = "OLMoE 2409.02060, section 5.3"


@dataclass(frozen=True)
class Found:
    """Of one router: figures that are whole, its cells as shares of tokens and of assignments, `overall` (cells,) of all
    labels."""

    whole: list[pd.DataFrame]
    special: Pooled
    share: Pooled
    overall: Array


def by_label(table: Table, tokens: Array, kind: str, special: list[Pool], share: list[Pool]) -> Found:
    """Figures of one router; `tokens` (units,) counts decisions. Permuted cells are added to the pools, one a label."""
    counts, home = table.counts.sum(1), table.home
    labels, experts = len(table.labels), counts.shape[1]
    hot = np.eye(labels)[home]
    total, n, units = hot.T @ counts, hot.T @ tokens, hot.sum(0).astype(int)
    drawn = st.document_draws(np.concatenate([table.counts, (hot * tokens[:, None])[:, :, None]], axis=2), home)
    draws, drawn_tokens = drawn[..., :-1], drawn[..., -1:]
    load = deal(home, labels, st.Rates(counts, counts.sum(1)))
    dropped = np.abs(counts.sum(1) / counts.sum() - tokens / tokens.sum()).max() > 1e-9
    by_token = deal(home, labels, st.Rates(counts, tokens)) if dropped else load
    load.add_to(share)
    by_token.add_to(special)
    label, expert = (x.ravel() for x in np.indices((labels, experts)))
    where = table.where | {"expert": expert, "subset": np.array([f"{kind}={x}" for x in table.labels])[label]}
    common: dict[str, Any] = {"null_name": NULL, "n": n[label].astype(int), "units": units[label], "bounds": (0, 1)}
    overall, null = st.shares(total.sum(0))[expert], load.null.counts
    of_tokens = figures(
        where, "domain specialization", total / n[:, None], source=OLMOE, estimator="top-k",
        chance=counts.sum() / n.sum() / experts, draws=draws / np.maximum(drawn_tokens, 1),
        null=by_token.null.counts / np.maximum(_tokens(by_token, dropped, counts, tokens), 1), **common,
    )  # fmt: skip
    of_load = figures(
        where, "share of load by label", st.shares(total), source="share of the label's assignments", chance=overall,
        draws=st.shares(draws), null=st.shares(null), **common,
    )  # fmt: skip
    whole = _information(table, kind, total, draws, load, int(n.sum()))
    whole += _divergences(table, kind, total, draws, load, int(n.sum()))
    return Found(whole, Pooled(of_tokens, by_token.t, special), Pooled(of_load, load.t, share), overall)


def _tokens(by_token: Dealt, dropped: bool, counts: Array, tokens: Array) -> Array:
    """(draws, labels, 1) decisions of every label when labels are dealt anew."""
    return by_token.null.totals * (1.0 if dropped else tokens.sum() / counts.sum())


_CELL = ["stack", "layer", "router", "expert", "subset", "value", "overall", "lift", "pmi", "ci_low", "ci_high", "p", "n"]


def lifted(share: pd.DataFrame, overall: Array) -> pd.DataFrame:
    """A label's share of an expert's load beside the expert's share `overall` (cells,), by every label."""
    cells = share.assign(overall=overall, lift=share["value"] / np.where(overall > 0, overall, np.nan))
    cells["pmi"] = np.log2(cells["lift"].clip(lower=1e-12))
    return cells[[*_CELL, "units"]]


def _information(table: Table, kind: str, total: Array, boot: Array, dealt: Dealt, n: int) -> list[pd.DataFrame]:
    where, null, units = table.where | {"subset": kind}, dealt.null.counts, len(table.counts)
    common: dict[str, Any] = {"null_name": NULL, "n": n, "units": units, "chance": 0.0}
    name = "I(label; expert) (bits)"
    (_, draws, base), norm, miller = ([f(x) for x in (total, boot, null)] for f in (
        st.mutual_information, st.normalized_information, st.miller_madow))  # fmt: skip
    plain, less = information(where, name, total, draws, base * dealt.fair, **common)
    rows = [
        plain,
        figures(where, name, miller[0], estimator="Miller-Madow", source="Miller 1955", draws=miller[1], null=miller[2],
                **common),
        less,
        figures(where, "NMI(label; expert)", norm[0], source="over the mean entropy", draws=norm[1], null=norm[2],
                bounds=(0, 1), **common),
    ]  # fmt: skip
    p = float(dealt.p()[0])
    return [row.assign(p=p, p_from=dealt.p_from) for row in rows]


def _divergences(table: Table, kind: str, total: Array, boot: Array, dealt: Dealt, n: int) -> list[pd.DataFrame]:
    pairs = list(combinations(range(len(table.labels)), 2))
    if not pairs or len(pairs) > 45:
        return []
    a, b = ([p[i] for p in pairs] for i in (0, 1))
    value, draws, base = (st.jensen_shannon(x[..., a, :], x[..., b, :]) for x in (total, boot, dealt.null.counts))
    names = [f"{kind}={table.labels[i]}, {table.labels[j]}" for i, j in pairs]
    pair_units = np.array([int(np.isin(table.home, pair).sum()) for pair in pairs])
    common: dict[str, Any] = {"source": "Lin 1991", "null_name": NULL, "chance": 0.0, "n": n, "bounds": (0, 1)}
    single = figures(table.where | {"subset": names}, "JSD (bits)", value, estimator="pair", draws=draws, null=base,
                     units=pair_units, **common).assign(p=dealt.p(a, b), p_from=dealt.p_from)  # fmt: skip
    whole, rows, p = table.where | {"subset": kind}, [single], float(dealt.p()[0])
    for name, form in (("JSD (bits)", np.asarray), ("Jensen-Shannon distance", np.sqrt)):
        means: dict[str, Any] = {"draws": form(draws).mean(1), "null": form(base).mean(1), "units": len(table.home)}
        rows.append(figures(whole, name, form(value).mean(), estimator="mean over pairs", **means, **common)
                    .assign(p=p, p_from=dealt.p_from))  # fmt: skip
    return rows
