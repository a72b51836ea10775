"""Dimensionality hierarchy: how many dimensions do states, router logits and routing use, and does it grow with depth?

Participation ratio PR = (Σλ)² / Σλ², λ the eigenvalues of the covariance: the form of HRM's comparison of its slow and fast
modules (arXiv 2506.21734: 89.95 against 30.22 trained, 40.75 against 42.09 untrained).
naive: of the sample covariance; about 1 / (1/P + 1/d + 1/PR) for P samples, so half the truth at P = PR.
unbiased: numerator and denominator averaged over disjoint indices (Chun et al., ICLR 2026); the document is the sample, and a
state stands for a random token of a random document. Compare unbiased values, or naive ones at equal n only.
Streams: router logits of a router (where stored), its routing weights (0 where an expert was not chosen), the routing matrix
(token × layers·experts) of a stack, and states that a trace summed up on its way (`measures`): of the residual stream, of what
experts take and give, and of modules that fire more than once in a forward pass, one figure per firing ("H_module, cycle 2").
slow_over_fast: of such modules, unbiased PR of the one that fires least over that of the one that fires most, each at its last
cycle, paired by sequence; 1 = no hierarchy. HRM's own figures are of the naive form.
Null, for router logits: every expert's column shuffled (no two experts vary together). For the routing matrix: every router's
rows shuffled (each layer keeps its own structure, layers are independent). Whole documents are shuffled, among those with as
many rows, as the tokens of one are not independent: a few documents that lean are not a dimension. p is for "fewer",
of the form in which every row is a sample, in the data as in the null: counted, and where too coarse a Pearson III curve
of 1 / PR. The routing weights of one router have no null: k of E weights that sum to one never vary independently.
Hierarchy index: geometric mean PR of the last third of a stack's routers over that of its first third, paired by document;
1 = flat. A depth profile of an untrained model is no less a profile, and so with cycles: give its run as `control` and read
both. What was summed up in both runs then stands side by side.
"""

from typing import Any

import numpy as np
import pandas as pd

from .. import statistics as st
from ..errors import AnalysisError
from ..statistics.participation import Floats, Grouped, from_sums, quotient, spread, sums
from ..store import Store
from ..words import RunNumber
from ._shared.answer import Answer, Chart, few_units, figures, gather, queries
from ._shared.arrays.routing_matrices import Sample, measured, sample
from ._shared.chart_forms import heatmap, layers
from ._shared.scope import scope
from ._shared.verdicts import saying
from ._shared.verdicts.verdict import Verdict, analyze, clearest, verdict

SOURCE = "HRM, arXiv 2506.21734; Chun et al., ICLR 2026"
PERMUTATIONS = 99
SUMMED = ("participation_ratio", "slow_over_fast")


def participation_ratio(states: Any, estimator: str = "unbiased", groups: Any = None) -> float:
    """PR of `states` (samples, dimensions), between 1 and dimensions.

    `estimator` is naive (of the sample covariance) or unbiased (samples must be independent; at least four). `groups`
    (samples,) says which samples come from one sequence: then only states of different sequences meet (unbiased only).
    Raises AnalysisError for other estimators, too few samples, numbers that are not finite, or states that do not vary.
    """
    x = np.asarray(states, dtype=np.float64)
    least = {"naive": 2, "unbiased": 4}
    if estimator not in least:
        raise AnalysisError(f"there is no estimator {estimator!r} of the participation ratio; there are: naive, unbiased")
    count = len(x) if groups is None or estimator == "naive" else len(np.unique(groups))
    if x.ndim != 2 or count < least[estimator]:
        raise AnalysisError(
            f"the {estimator} participation ratio takes (samples, dimensions) of {least[estimator]} independent samples "
            f"or more, not {count} in an array of shape {x.shape}; give more"
        )
    if not np.isfinite(x).all():
        raise AnalysisError("the states hold NaN or infinite numbers, so that no covariance exists; leave them out")
    value = _ratio(x, estimator, groups)
    if not np.isfinite(value):
        raise AnalysisError(f"tr(Σ²) of these {count} samples is estimated as zero or less: they do not vary, or are too few")
    return value


def _ratio(x: Floats, estimator: str, groups: Any) -> float:
    return _ratios(x)[estimator] if groups is None or estimator == "naive" else float(Grouped(x, np.asarray(groups)).ratio()[0])


def _ratios(x: Floats) -> dict[str, float]:
    """Both estimators, every row a sample of its own."""
    n, trace, fourth, frobenius = sums(x)
    naive = trace**2 / frobenius if frobenius > 0 else float("nan")
    return {"naive": naive, "unbiased": from_sums(n, trace, fourth, frobenius) if n > 3 else float("nan")}


def run(store: Store, run: int | None = None, control: RunNumber | None = None) -> Answer:
    """PR of router logits, routing weights and the routing matrix; of states where a trace summed them up.

    `control` is the number of another run, e.g. of the untrained model on the same inputs.
    """
    here = scope(store, run)
    taken = sample(here)
    frames = _figures(taken, "")
    found = measured(store, here.run, SUMMED, "dimensionality")
    notes = [*here.notes, *taken.notes, *_cycles(found)]
    sql = dict(taken.sql)
    if control is not None:
        suffix = f", control run {control}"
        other = sample(scope(store, control))
        frames += _figures(other, suffix)
        sql |= {name + suffix: query for name, query in other.sql.items()}
        theirs = measured(store, control, SUMMED, "dimensionality")
        theirs = theirs[theirs["subset"].isin(found["subset"])]
        found = pd.concat([found, theirs.assign(subset=theirs["subset"] + suffix)]) if len(theirs) else found
    if found.empty and not frames:
        said = taken.notes or [
            "its model has no router, and states are summed up only when a trace ends: let it end, or trace again"
        ]
        raise AnalysisError(f"run {here.run} has no dimensionality to give: " + " ".join(said))
    frame = gather([*frames, found])
    notes += few_units(frame)
    if found.empty:
        notes.append("No hidden states were summed up in this run: trace with --measure dimensionality to have them here.")
    if len(found):
        runs = [here.run] if control is None else [here.run, control]
        sql["states"] = f"from measures where run in ({', '.join(map(str, runs))}) and name in {SUMMED}"
    sql["figures"] = queries(*sql.values())
    return Answer(
        "dimensionality", "Dimensionality hierarchy", _verdict(frame), here.run, {"figures": frame}, sql, notes, charts
    )


def beside(store: Store, run: int, control: int | None = None) -> list[int]:
    """The run that is the control, if there is one."""
    return [] if control is None else [control]


def _cycles(found: pd.DataFrame) -> list[str]:
    """Why slow and fast are not compared, where there are several repeated modules."""
    cycles = found["subset"][found["subset"].str.contains(r", cycle \d+$")]
    several = cycles.str.rpartition(", cycle ")[0].nunique() > 1 if len(cycles) else False
    if not several or (found["name"] == "slow_over_fast").any():
        return []
    return ["No slow_over_fast: it takes four sequences, and one module that fires least and one that fires most."]


def _figures(taken: Sample, suffix: str) -> list[pd.DataFrame]:
    frames = []
    for stream, shuffle in (("router logits", _columns), ("routing weights", None), ("routing matrix", _blocks)):
        for where, x, blocks in taken.streams(stream):
            frames += _both(where | {"subset": stream + suffix}, x, taken.units_of(where["stack"]), shuffle, blocks)
    for stream in ("router logits", "routing weights"):
        for stack in taken.stacks:
            frames += _index(taken, stack, stream, suffix)
    return frames


def _both(where: dict[str, Any], x: Floats, units: Floats, shuffle: Any, blocks: Floats) -> list[pd.DataFrame]:
    """The two estimators of one stream with their nulls."""
    documents, rng = len(np.unique(units)), np.random.default_rng(0)
    if documents < 4 or not np.ptp(x, axis=0).any():
        return []
    blocks_of = _blocks_of(units)
    mixed = [_ratios(shuffle(x, blocks, blocks_of, rng)) for _ in range(PERMUTATIONS)] if shuffle else []
    common: dict[str, Any] = {"source": SOURCE, "n": len(x), "units": documents, "null_name": NULLS[shuffle]}
    plain = _ratios(x)
    value, low, high = spread(Grouped(x, units))
    forms = {"naive": (plain["naive"], 1 / (1 / len(x) + 1 / x.shape[1])), "unbiased": (value, float(x.shape[1]))}
    rows = []
    for form, (ratio, chance) in forms.items():
        null = np.array([both[form] for both in mixed])[:, None] if mixed else None
        row = figures(where, "participation_ratio", ratio, estimator=form, null=null, chance=chance, **common)
        if null is not None:
            p = float(st.curve_tail(1 / np.array([plain[form]]), 1 / null)[0])
            row = row.assign(p=p, p_from=f"count of {len(null)} draws, Pearson III beyond")
        rows.append(row)
    return [rows[0], rows[1].assign(ci_low=low, ci_high=high)] if np.isfinite(value) else rows[:1]


def _blocks_of(units: Floats) -> list[Floats]:
    """Rows of documents with equally many: arrays (documents, rows of each)."""
    order = np.argsort(units, kind="stable")
    _, start, many = np.unique(units[order], return_index=True, return_counts=True)
    return [order[start[many == m][:, None] + np.arange(m)] for m in np.unique(many)]


def _moved(rows: int, blocks_of: list[Floats], rng: np.random.Generator) -> Floats:
    """(rows,): where each row comes from when whole documents are shuffled."""
    source = np.arange(rows)
    for places in blocks_of:
        source[places] = rng.permutation(places)
    return source


def _columns(x: Floats, blocks: Floats, blocks_of: list[Floats], rng: np.random.Generator) -> Floats:
    return np.stack([column[_moved(len(x), blocks_of, rng)] for column in x.T], axis=1)


def _blocks(x: Floats, blocks: Floats, blocks_of: list[Floats], rng: np.random.Generator) -> Floats:
    return np.concatenate([x[:, blocks == block][_moved(len(x), blocks_of, rng)] for block in np.unique(blocks)], axis=1)


NULLS = {
    None: "",
    _columns: "whole documents shuffled, every column on its own",
    _blocks: "whole documents shuffled, every router on its own",
}


def _index(taken: Sample, stack: str, stream: str, suffix: str) -> list[pd.DataFrame]:
    """Late over early layers, with a bootstrap that draws the same documents in both."""
    units = taken.units_of(stack)
    documents = len(np.unique(units))
    depth = [Grouped(x, units) for where, x, _ in taken.streams(stream) if where["stack"] == stack] if documents >= 4 else []
    third = len(depth) // 3 or len(depth) // 2
    if not third:
        return []
    value, low, high = quotient(depth[-third:], depth[:third])
    where = {"stack": stack, "subset": f"{stream}, last over first {third} router{'s' * (third > 1)}{suffix}"}
    row = figures(
        where, "hierarchy_index", value, source=SOURCE, estimator="unbiased", chance=1.0, n=len(units), units=documents
    )
    return [row.assign(ci_low=low, ci_high=high)] if np.isfinite(value) else []


def by_cycle(figures: pd.DataFrame) -> pd.DataFrame:
    """The figures that are of one firing of a module, with the `module` (and whose, for a control's) and its `cycle` from 1."""
    parts = figures["subset"].str.extract(r"^(?P<module>.*), cycle (?P<cycle>\d+)(?P<control>.*)$").dropna()
    return figures.loc[parts.index].assign(module=parts["module"] + parts["control"], cycle=parts["cycle"].astype(int))


def _verdict(frame: pd.DataFrame) -> Verdict:
    unbiased = frame[frame["estimator"] == "unbiased"]
    index = unbiased[unbiased["name"].isin(["hierarchy_index", "slow_over_fast"])]
    ratios = clearest((unbiased if len(unbiased) else frame).query("name == 'participation_ratio'"))
    said = [f"the {saying.named(row, frame).replace('_', ' ')} is {saying.amount(row, 'times')}" for _, row in index.iterrows()]
    rows = pd.concat([ratios, index])
    if len(ratios):
        best = ratios.iloc[0]
        fewer = ", fewer" if best["q"] <= saying.FDR else ", no fewer" if best["q"] <= 1 else ""
        than = f"{fewer} than if its parts were independent" if fewer else ""
        said.insert(0, f"the {best['subset']} of {saying.layer(best, frame)} used {saying.amount(best, 'dimensions')}{than}")
    follows, limits = (
        "; ".join(said[:3]),
        "it does not show that training made it so: give an untrained model's run as `control`",
    )
    return verdict(follows[0].upper() + follows[1:], rows.iloc[0], frame, limits, rows, analyze("structure"))


def charts(answer: Answer) -> dict[str, Chart]:
    """Unbiased PR by layer and by cycle, for each stream; and of every expert."""
    frame = answer.figures("participation_ratio", estimator="unbiased")
    drawn, title, sql = {}, "Participation ratio (unbiased)", answer.sql["figures"]
    whole = frame[frame["layer"].notna() & frame["expert"].isna()]
    if len(whole):
        drawn["participation ratio by layer"] = layers(whole, title, sql, "subset")
    if len(cycles := by_cycle(frame)):
        drawn["participation ratio by cycle"] = layers(cycles, title, sql, "module", "cycle")
    for stream, some in frame[frame["expert"].notna()].groupby("subset", sort=False):
        drawn[f"{stream} by layer and expert"] = heatmap(some, f"{title} of {stream}", sql)
    return drawn
