"""What each expert of the shipped models is for, causally: sweeps, figures and reports/what-experts-are-for.md.

    python probes/what_experts_are_for.py [STORE]

STORE keeps traces and effects; what is in it already is not computed again, and a sweep that was cut off goes on.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import moescope
from moescope import charts
from moescope.contracts import find
from moescope.inputs import Dataset, read
from moescope.interventions import ablate
from moescope.interventions.ablation.rows import baseline
from moescope.interventions.ablation.worth import agreement, predicted, pruning, with_effects
from moescope.interventions.counterfactual import fragility, regrets
from moescope.interventions.data import Batches
from moescope.models.loading import Loaded, load

ROOT = Path(__file__).resolve().parents[1]
REPORT, FIGURES = ROOT / "reports" / "what-experts-are-for.md", ROOT / "reports" / "figures"
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
PLAN: dict[str, dict[str, Any]] = {
    "mixtral": {"data": "text", "limit": 100, "mode": "route-around", "by": ["domain", "upos"], "batch": 8},
    "switch": {"data": "text", "limit": 60, "mode": "zero", "by": ["domain"], "batch": 8},
    "vmoe": {"data": "fashion-mnist", "limit": None, "mode": "route-around", "by": ["class"], "batch": 40},
}
WORTH = 0.01  # nats a token: the smallest interaction that is named
NAMES = {"mixtral": "Mixtral", "switch": "Switch", "vmoe": "V-MoE"}


def swept(name: str, store: Path) -> tuple[Loaded, int, Dataset | None]:
    """The model, its baseline run and (images) its data, with all experts' effects in the store."""
    plan, loaded = PLAN[name], load(name)
    data = read(plan["data"], limit=plan["limit"])
    images = data if loaded.reads == "image" else None
    if not _has(store, loaded, None):
        moescope.trace(loaded, data, store, batch_size=plan["batch"], name=f"{name}, baseline")
    if not _has(store, loaded, plan["mode"]):
        ablate(loaded, store, mode=plan["mode"], by=plan["by"], sweep=True, data=images, classes=CLASSES, report=print)
    with moescope.open(store) as opened:
        return loaded, baseline(opened, loaded.model), images


def _has(store: Path, loaded: Loaded, mode: str | None) -> bool:
    if not store.exists():
        return False
    with moescope.open(store) as opened:
        try:
            run = baseline(opened, loaded.model)
        except moescope.errors.InputError:
            return False
        known = opened.rows(
            "select count(distinct (router, expert)) from ablations where run = ? and mode = ? and expert is not null",
            [run, mode],
        )
        return mode is None or known[0][0] == sum(site.n_experts for site in find(loaded.model))


def section(name: str, store: Path) -> list[str]:
    """The report's part on one model."""
    _, run, images = swept(name, store)
    unit = "images" if images is not None else "documents"
    with moescope.open(store) as opened:
        effects = opened.sql("select * from ablation_effects where run = ?", [run]).df()
        frame = with_effects(opened, predicted(opened, run), PLAN[name]["mode"])
    effects = effects[effects["mode"] == PLAN[name]["mode"]]
    effects["place"] = effects["stack"].str[:3] + " " + effects["layer"].astype(str) + ":" + effects["expert"].astype(str)
    whole = effects[(effects["group_kind"] == "all") & (effects["control"] == "none")]
    lines = [f"## {NAMES[name]}", "", _head(name, whole, unit), ""]
    lines += _figure(f"{name}-effects", _bars(name, whole), "Change of the loss without one expert, 95 % over " + unit)
    lines += _for_what(effects, whole)
    lines += _figure(f"{name}-groups", _groups(name, effects), "Change of the loss without one expert, by group")
    return lines + _misleads(name, frame, whole)


def _head(name: str, whole: pd.DataFrame, unit: str) -> str:
    row, mode = whole.iloc[0], PLAN[name]["mode"]
    sure = int((whole["q"] < 0.05).sum())
    return (
        f"{len(whole)} experts, each taken away alone (`{mode}`), on {int(row['n']):,} predictions from {int(row['units'])} "
        f"{unit}; loss without ablation {row['baseline_nll']:.3f} nats. {sure} of {len(whole)} change the loss beyond chance "
        f"(q < 0.05); the largest change is {whole['delta_nll'].max():+.4f}, the median {whole['delta_nll'].median():+.4f}."
    )


def _bars(name: str, whole: pd.DataFrame) -> Any:
    best = whole.sort_values("delta_nll", ascending=False)
    return charts.bars(best, "place", "delta_nll", "ci_low", "ci_high", chance=0.0, chance_label="no effect", horizontal=True,
                       title=f"{NAMES[name]}: loss without one expert (nats)", sort="-y")  # fmt: skip


def _groups(name: str, effects: pd.DataFrame) -> Any:
    kind = PLAN[name]["by"][0]
    part = effects[(effects["group_kind"] == kind) & (effects["control"] == "none")]
    return charts.heatmap(part, "group", "place", "delta_nll", centre=0.0,
                          title=f"{NAMES[name]}: loss without one expert, by {kind} (nats)")  # fmt: skip


def _for_what(effects: pd.DataFrame, whole: pd.DataFrame) -> list[str]:
    """A row per expert: its effect, and the groups it is for."""
    keys = ["place", "group_kind", "group"]
    own = effects[(effects["control"] == "none") & (effects["ci_low"] > 0)][keys]
    found = effects[(effects["control"] == "router") & (effects["delta_nll"] >= WORTH)]
    found = found[(found["q"] < 0.05) & (found["units"] >= 5)].merge(own, on=keys)
    lines = [
        "| expert | load | Δ loss, nats [95 %] | what for: beyond other groups and the router's other experts, q < 0.05 |",
        "| --- | --- | --- | --- |",
    ]
    for row in whole.sort_values("delta_nll", ascending=False).itertuples():
        mine = found[found["place"] == row.place].sort_values("delta_nll", ascending=False).head(4)
        said = (
            "; ".join(f"{g.group} {g.delta_nll:+.3f} [{g.ci_low:+.3f}, {g.ci_high:+.3f}]" for g in mine.itertuples())
            or "nothing"
        )
        lines.append(
            f"| {row.place} | {row.load:.1%} | {row.delta_nll:+.4f} [{row.ci_low:+.4f}, {row.ci_high:+.4f}] | {said} |"
        )
    return [*lines, ""]


def _misleads(name: str, frame: pd.DataFrame, whole: pd.DataFrame) -> list[str]:
    """Frequency and gate mass beside the effect."""
    ranks = agreement(frame, ["frequency", "gate_mass"])
    said = "; ".join(
        f"{r.score.replace('_', ' ')} {r.correlation:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}], p {r.p:.2g}"
        for r in ranks.itertuples()
    )
    lines = ["### Where frequency misleads", "", f"Rank correlation with the effect, mean over routers: {said}.", ""]
    pairs = [_pair(part) for _, part in whole.groupby("router")]
    best = max((p for p in pairs if p is not None), key=lambda p: p[0], default=None)
    if best is not None:
        _, more, less = best
        lines += [
            f"Most misleading: {more.place} has less load ({more.load:.1%}) than {less.place} ({less.load:.1%}), and taking it "
            f"away costs {more.delta_nll:+.4f} [{more.ci_low:+.4f}, {more.ci_high:+.4f}] against {less.delta_nll:+.4f} "
            f"[{less.ci_low:+.4f}, {less.ci_high:+.4f}].", "",
        ]  # fmt: skip
    chart = charts.scatter(
        whole, "load", "delta_nll", color="stack", title=f"{NAMES[name]}: load and effect", tooltip=["place"]
    )
    return lines + _figure(f"{name}-load", chart, "Share of the assignments and change of the loss")


def _pair(part: pd.DataFrame) -> tuple[float, Any, Any] | None:
    """The two experts of a router with the largest gap in effect against their order in load, intervals apart."""
    rows = list(part.itertuples())
    found = [(a.delta_nll - b.delta_nll, a, b) for a in rows for b in rows if a.load < b.load and a.ci_low > b.ci_high]
    return max(found, key=lambda p: p[0], default=None)


def pruned(store: Path) -> list[str]:
    """Mixtral pruned by frequency, gate mass and effect, and at random."""
    loaded, run, _ = swept("mixtral", store)
    with moescope.open(store) as opened:
        frame = with_effects(opened, predicted(opened, run), "route-around")
    rng = np.random.default_rng(0)
    frame["random"] = rng.random(len(frame))
    names = ["frequency", "gate_mass", "effect", "random"]
    scores = {n: {path: part.sort_values("expert")[n].to_numpy() for path, part in frame.groupby("name")} for n in names}
    curve = pruning(loaded, store, scores, keep=[6, 4, 3, 2], report=print)
    chart = charts.lines(
        curve, "keep", "delta_nll", "score", "ci_low", "ci_high", title="Mixtral: loss with n experts kept per layer"
    )
    lines = [
        "## Pruning",
        "",
        "The best n of 8 experts of every layer kept by each score, the others routed around; all layers at once.",
        "",
    ]
    table = curve.pivot(index="score", columns="keep", values="delta_nll")[[6, 4, 3, 2]]
    lines += ["| kept by | 6 | 4 | 3 | 2 |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {score.replace('_', ' ')} | " + " | ".join(f"{v:+.3f}" for v in row) + " |"
        for score, row in zip(table.index, table.to_numpy())
    ]
    return [*lines, "", *_figure("mixtral-pruning", chart, "Change of the loss, 95 % over documents")]


def regretted(store: Path, count: int = 60) -> list[str]:
    """Counterfactual sets for tokens of Mixtral's first and last layer: every one of the 27 other pairs."""
    loaded, run, _ = swept("mixtral", store)
    rng, frames = np.random.default_rng(0), []
    with moescope.open(store) as opened:
        batches = list(Batches(opened, run, loaded))
    for layer in (0, 3):
        for number in rng.choice(len(batches), 6, replace=False):
            batch = batches[number]
            rows, places = np.nonzero(batch.scored[:, :96] >= 0)
            at = rng.choice(len(rows), count // 6, replace=False)
            frames.append(regrets(loaded, batch, layer, list(zip(rows[at], places[at])), alternatives=None).assign(layer=layer))
    frame = pd.concat(frames, ignore_index=True)
    lines = ["## Single tokens sent elsewhere", "", ELSEWHERE.format(count=count), "",
             "| layer | margin | tokens | regret, nats [95 % over tokens] | better pairs | flip |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for layer, part in frame.groupby("layer"):
        for r in fragility(part.reset_index(drop=True), bins=3).itertuples():
            regret = f"{r.regret:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]"
            margin = f"{r.margin_from:.3f} to {r.margin_to:.3f}"
            lines.append(f"| {layer} | {margin} | {r.n} | {regret} | {r.better:.0%} | {r.flip:+.4f} |")
    return [*lines, ""]


def _figure(name: str, chart: Any, caption: str) -> list[str]:
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.svg").write_text(charts.to_svg(chart, small=True))
    return [f"![{caption}](figures/{name}.svg)", "", f"*{caption}.*", ""]


def main() -> None:
    """Make the report."""
    torch.set_num_threads(1)
    store = Path(sys.argv[1] if len(sys.argv) > 1 else "what-experts-are-for.duckdb")
    lines = ["# What experts are for", "", INTRODUCTION.format(worth=WORTH), ""]
    for name in PLAN:
        lines += section(name, store)
    lines += pruned(store) + regretted(store)
    REPORT.write_text("\n".join(lines).rstrip() + "\n")
    print(REPORT)


INTRODUCTION = """Each expert of the shipped models is taken away alone, and the change of the loss is counted by group: by
domain, part of speech or class of what is predicted. `route-around`: the router cannot choose it and takes the next best;
`zero`: nothing runs in its place (Switch, whose next best could overflow). Intervals draw documents (for V-MoE images) with
replacement. An expert counts as *for* a group where taking it away costs more there than in the other groups, beyond what the
same holds for the other experts of its router (the interaction of expert and group: what is hard for everyone, or needed
everywhere, drops out), by {worth} nats a token or more, at a false discovery rate of 5 % against groups dealt anew to
documents, and where the effect itself is above 0. Made by `python
probes/what_experts_are_for.py`; models of a few million parameters, one seed each: read it as what the method shows, not as
a law. Part-of-speech labels of the shipped text are silver."""

ELSEWHERE = """{count} tokens per layer of Mixtral; for each, every one of the 27 other pairs of experts, weighed by the
router's own rule. Regret: log p(next token) of the best pair minus that of the executed one. With 27 tries it is above 0 by
luck alone, so read the share of better pairs: a router no better than chance has half of them above it. Flip: change of log
p when the weaker expert gives way to the first one not chosen."""

if __name__ == "__main__":
    main()
