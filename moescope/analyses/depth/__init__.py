"""Depth: how many blocks and recursions run for a token, and does it depend on what the token is?

Routers of kind `depth` decide whether a block runs for a token, or how often (Mixture-of-Depths, arXiv 2404.02258;
Mixture-of-Recursions, arXiv 2507.10524). A token's depth is the number of blocks and recursions that ran for it in a forward
(view `token_depth`), what always runs not counted.

* `share skipped`: decisions of a router in which nothing ran, of all its decisions.
* `mean depth` and `share at depth`, over tokens and forwards.
* `mean depth by label`: of tokens with a label (upos and others of tokens, domain and others of sequences), at positions
  (0, 1–3, 4–15, ...) and of vocabulary ids that occur ten times; chance: the mean of all tokens that have a label of the kind.
* `I(label; depth)` in bits: plug-in (Shannon 1948), and less its mean under the null.

Null: labels, positions and ids shuffled among the tokens of their sequence, which holds how deep each sequence went; labels
that whole documents have are dealt anew to documents, and their p studentized, as documents are not equally long. p of
single labels by Student's t about the null's draws. Intervals: documents drawn anew.
"""

from typing import Any

import numpy as np
import pandas as pd

from ... import statistics as st
from ...errors import AnalysisError
from ...statistics import Array
from ...statistics.dealing import studentized
from ...store import Store
from ...words import Portion
from .._shared.answer import TAILS, Answer, Chart, few_units, figures, gather, information
from .._shared.chart_forms import bars, layers
from .._shared.dealt_labels import Dealt
from .._shared.scope import Scope, place, scope
from .._shared.verdicts import saying
from .._shared.verdicts.verdict import Verdict, analyze, clearest, verdict
from .tokens import MOST, Deep, Labels, read

SHUFFLES = 199
WITHIN = "labels shuffled among the tokens of a sequence"
DEALT = 499
WHOLE = "labels dealt anew to documents, studentized"
NONE = "none: a count"
SOURCES = {"depth": "blocks that ran, Mixture-of-Depths 2404.02258", "mean": "mean over tokens and forwards"}


def run(store: Store, run: int | None = None, kinds: str | None = None, fdr: Portion = 0.05) -> Answer:
    """How deep tokens go, by place, text and labels of some `kinds` (upos,domain; default: all of up to a hundred values)."""
    here = scope(store, run)
    notes = list(here.notes)
    asked = _kinds(here, kinds, notes)
    skipped, sql_skipped = _skipped(here)
    stacks, sql_depths = read(here, notes)
    rows = [skipped]
    for deep in stacks:
        rows += _distribution(deep)
        labels = [*(deep.labels(kind, level) for kind, level in asked.items()), deep.positions(), deep.words()]
        for one in labels:
            rows += _by(deep, one)
    frame = gather(rows)
    by = frame[frame["name"] == "mean depth by label"].reset_index(drop=True)
    ours = by["subset"].str.startswith("token=")
    frames = {"figures": frame, "labels": by[~ours].reset_index(drop=True), "tokens": _ranked(by[ours])}
    sql = dict.fromkeys(frames, sql_depths) | {"skipped": sql_skipped}
    return Answer("depth", "Depth", _verdict(frame, fdr), here.run, frames, sql, notes + few_units(frame), charts)


def _kinds(here: Scope, wanted: str | None, notes: list[str]) -> dict[str, str]:
    """{kind: token or sequence}; AnalysisError where no router is of depth, or a kind is not there."""
    if not (here.routers["kind"] == "depth").any():
        have = ", ".join(sorted(here.routers["kind"].dropna().unique()))
        raise AnalysisError(
            f"no router of run {here.run} decides about depth (kinds there: {have}), so every token goes through every block; "
            "trace a model that skips or repeats blocks, such as `moescope trace mor --data text`"
        )
    known = {kind: (level, n) for level in ("sequence", "token") for kind, n in here.kinds(level).items()}
    asked = (
        [kind.strip() for kind in wanted.split(",")] if wanted else [kind for kind, (_, n) in known.items() if 1 < n <= MOST]
    )
    if missing := [kind for kind in asked if kind not in known]:
        have = ", ".join(f"{kind} ({n})" for kind, (_, n) in known.items()) or "none"
        raise AnalysisError(f"run {here.run} has no label {missing[0]!r} (it has: {have}); trace data that has it")
    if many := [kind for kind, (_, n) in known.items() if n > MOST and not wanted]:
        notes.append(
            f"Labels of more than {MOST} values are left out ({', '.join(many)}); name them with `kinds` to have them."
        )
    return {kind: known[kind][0] for kind in asked}


def _skipped(here: Scope) -> tuple[pd.DataFrame, str]:
    sql = f"""with units as ({here.units_sql()})
select u.unit, d.router, count(*) filter (coalesce(d.selected, 0) = 0) as skipped, count(*) as n
from decisions d join routers r using (router) join tokens t using (token) join units u using (sequence)
where d.run = {here.run} and r.kind = 'depth' group by all order by router, unit"""
    rows = []
    for router, part in here.store.sql(sql).df().groupby("router"):
        counts = part[["skipped", "n"]].to_numpy(float)
        draws = st.document_draws(counts)
        rows.append(figures(place(here.routers.loc[router]), "share skipped", counts[:, 0].sum() / counts[:, 1].sum(),
                            source="nothing ran, of all decisions", draws=draws[:, 0] / np.maximum(draws[:, 1], 1),
                            null_name=NONE, bounds=(0, 1), n=int(counts[:, 1].sum()), units=len(part)))  # fmt: skip
    return pd.concat(rows, ignore_index=True), sql


def mean_depth(counts: Array) -> Array:
    """Of counts (..., depths); NaN where there is nothing."""
    total = counts.sum(-1)
    return np.divide((counts * np.arange(counts.shape[-1])).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)


def _distribution(deep: Deep) -> list[pd.DataFrame]:
    counts = deep.counts(np.zeros(len(deep.tokens), int), 1)[:, 0]
    draws, units, n = st.document_draws(counts), int(counts.any(axis=1).sum()), int(counts.sum())
    common: dict[str, Any] = {"null_name": NONE, "n": n, "units": units, "source": SOURCES["depth"]}
    subset = np.array([f"depth={d}" for d in range(deep.depths)], dtype=object)
    return [
        figures({"stack": deep.stack}, "mean depth", mean_depth(counts.sum(0)), draws=mean_depth(draws),
                bounds=(0, np.inf), **common),
        figures({"stack": deep.stack, "subset": subset}, "share at depth", st.shares(counts.sum(0)), draws=st.shares(draws),
                bounds=(0, 1), **common),
    ]  # fmt: skip


def _by(deep: Deep, labels: Labels) -> list[pd.DataFrame]:
    """Depth by label of one kind: what the label tells, and the mean of each."""
    counts = deep.counts(labels.code, max(len(labels.names), 1))
    total = counts.sum(0)
    if (total.sum(1) > 0).sum() < 2:
        return []
    null = st.dealt(counts, SHUFFLES) if labels.whole else deep.shuffled(labels.code, len(labels.names), SHUFFLES)
    draws = _draws(counts, labels.whole)
    rows = [*_information(deep.stack, labels, counts, draws, null), _means(deep.stack, labels, counts, draws, null)]
    return _of_documents(rows, counts, total.sum(1) > 0) if labels.whole else rows


def _of_documents(rows: list[pd.DataFrame], counts: Array, there: Array) -> list[pd.DataFrame]:
    """Their p studentized, as whole documents are dealt, which are not equally long."""
    told, depth = Dealt(*studentized(counts, DEALT)), counts @ np.arange(counts.shape[2])
    share = st.shares(counts.sum((0, 1)))
    spread = np.array([share @ np.arange(len(share)) ** 2 - (share @ np.arange(len(share))) ** 2])
    mean = Dealt(*studentized(depth[:, :, None], DEALT, totals=counts.sum(2), binomial=spread))
    p = st.t_tail(np.nan_to_num(mean.t[:, 0]), np.nan_to_num(mean.null.against_rest()[..., 0]), "both")
    p = np.where(np.isnan(mean.t[:, 0]), np.nan, p)
    found = [row.assign(p=float(told.p()[0]), p_from=told.p_from) for row in rows[:-1]]
    return [*found, rows[-1].assign(p=p[there], p_from=f"{TAILS['t']} {DEALT} draws")]


def _information(stack: str, labels: Labels, counts: Array, draws: Array, null: Array) -> list[pd.DataFrame]:
    drawn, base = (st.mutual_information(x) for x in (draws, null))
    where, units = {"stack": stack, "subset": labels.kind}, int(counts.any(axis=(1, 2)).sum())
    common = {"null_name": WHOLE if labels.whole else WITHIN, "chance": 0.0, "n": int(counts.sum()), "units": units}
    return [*information(where, "I(label; depth) (bits)", counts.sum(0), drawn, base, **common)]


def _means(stack: str, labels: Labels, counts: Array, draws: Array, null: Array) -> pd.DataFrame:
    total = counts.sum(0)
    there, units = np.flatnonzero(total.sum(1)), counts.any(axis=2).sum(0)
    subset = np.array([f"{labels.kind}={labels.names[i]}" for i in there], dtype=object)
    return figures(
        {"stack": stack, "subset": subset}, "mean depth by label", mean_depth(total)[there], source=SOURCES["mean"],
        chance=mean_depth(total.sum(0)), draws=mean_depth(draws)[:, there], null=_filled(mean_depth(null)[:, there]),
        null_name=WHOLE if labels.whole else WITHIN, side="both", tail="t", bounds=(0, counts.shape[2] - 1),
        n=total.sum(1).astype(int)[there], units=units[there],
    )  # fmt: skip


def _draws(counts: Array, whole: bool) -> Array:
    """Documents drawn anew, those of one label among themselves where each has one; in fewer draws where labels are many."""
    draws = int(np.clip(40_000_000 // max(counts[0].size, 1), 100, st.DRAWS))
    return st.document_draws(counts, counts.sum(axis=2).argmax(axis=1) if whole else None, draws)


def _filled(null: Array) -> Array:
    """Draws in which a label met nothing take the label's mean over the others."""
    return np.where(np.isnan(null), np.nanmean(null, axis=0, keepdims=True), null)


def _value(subset: str) -> str:
    return subset.partition("=")[2]


def _ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Vocabulary ids, the deepest first."""
    text = frame["subset"].map(_value)
    return frame.assign(text=text).sort_values(["value", "n"], ascending=False, ignore_index=True)


def _verdict(frame: pd.DataFrame, fdr: float) -> Verdict:
    mean = frame[frame["name"] == "mean depth"]
    of = [f"{saying.amount(row, 'blocks and recursions')} run for a token{f' of the {row.stack}' * (len(mean) > 1)}"
          for _, row in mean.iterrows()]  # fmt: skip
    told = clearest(frame[(frame["name"] == "I(label; depth) (bits)") & (frame["estimator"] == "less null mean")])
    found = told[told["q"] <= fdr].sort_values("value", ascending=False)
    said = f"On average {' and '.join(of)}"
    limits = "it does not show that a token needed the blocks that ran for it"
    if found.empty:
        least = told if len(told) else mean
        more = f"; no label, position or token tells more of it than its null, {saying.most(told)}" if len(told) else ""
        return verdict(f"{said}{more}", least.iloc[0], frame, saying.NOTHING, least, analyze("load"))
    best = ", ".join(f"the {row['subset']} {saying.amount(row)}" for _, row in found.head(3).iterrows())
    follows = f"{said}; beyond its null a token's depth is told by {best}"
    return verdict(follows, found.iloc[0], frame, limits, found, analyze("load"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Distribution, what routers skip, and the mean depth by label, position and token."""
    spread = answer.figures("share at depth")
    spread = spread.assign(depth=spread["subset"].map(_value))
    made = {"depth of tokens": bars(spread, "Share of tokens by depth", answer.sql["figures"], "depth", "stack")}
    skipped = answer.figures("share skipped")
    made["share skipped"] = layers(skipped, "Share of decisions in which nothing ran", answer.sql["skipped"])
    labels = answer.frames["labels"]
    for kind, part in labels.groupby(labels["subset"].map(lambda subset: subset.partition("=")[0]), sort=False):
        shown = part.assign(label=part["subset"].map(_value)).sort_values("value", ascending=False)
        if len(shown) <= 40:
            made[f"mean depth by {kind}"] = bars(shown, f"Mean depth by {kind}", answer.sql["labels"], "label", "stack")
    return made
