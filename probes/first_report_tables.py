"""Tables and figures of reports/first-report.md, from the stores that first_report.py traces."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from moescope import analyses
from moescope.analyses import Answer
from moescope.errors import AnalysisError

PATCH = "I(attribute; expert) (bits)"
LABEL = "I(label; expert) (bits)"
GIVEN = "I(expert; label | token and document) (bits)"
BEYOND = "less null mean"
UNTRAINED, TRAINED = 3, 4  # runs of the store of Mixtrals, behind those of steps 24, 240 and 960
RUNS = (("trained", "mixtral", TRAINED), ("untrained", "mixtral", UNTRAINED), ("labels dealt anew", "shuffled", TRAINED))

SWITCH = {
    "switch-load": "normalized load entropy",
    "switch-dead": "dead experts",
    "switch-cold": "cold experts",
    "switch-dropped": "dropped share",
    "switch-maxvio": "MaxVio",
}


class Asked:
    """Answers by (store, analysis, run, options), each asked once."""

    def __init__(self, stores: dict[str, Path]) -> None:
        self.stores = stores
        self._known: dict[Any, Answer] = {}

    def __call__(self, store: str, name: str, run: int, **options: Any) -> Answer:
        key = (store, name, run, *sorted(options.items()))
        if key not in self._known:
            print("asking", *key, flush=True)
            self._known[key] = analyses.run(name, self.stores[store], run, **options)
        return self._known[key]


def said(row: Any, digits: int = 3) -> str:
    """value [interval], and a star where q (or, where there is none, p) is 0.05 or less."""
    low, high = row["ci_low"], row["ci_high"]
    between = f" [{low:.{digits}f}, {high:.{digits}f}]" if pd.notna(low) else ""
    test = row["q"] if pd.notna(row["q"]) else row["p"]
    return f"{row['value']:.{digits}f}{between}{'*' if pd.notna(test) and test <= 0.05 else ''}"


def by_layer(columns: dict[str, pd.DataFrame], extra: Callable[[Any], str] | None = None, digits: int = 3) -> list[list[str]]:
    """One row per stack and layer, one column per frame of figures."""
    first = next(iter(columns.values()))
    rows = [["layer", *columns]]
    for _, at in first.iterrows():
        here = [f[(f["stack"] == at["stack"]) & (f["layer"] == at["layer"])] for f in columns.values()]
        rows.append([f"{at['stack']} {at['layer']}", *[said(h.iloc[0], digits) if len(h) else "–" for h in here]])
    return rows


def table(rows: Iterable[list[str]]) -> str:
    """Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def three(ask: Asked, name: str, pick: Callable[[Answer], pd.DataFrame], **options: Any) -> dict[str, pd.DataFrame]:
    """Trained, untrained, and trained with labels dealt anew."""
    return {
        "trained": pick(ask("mixtral", name, TRAINED, **options)),
        "untrained": pick(ask("mixtral", name, UNTRAINED, **options)),
        "labels dealt anew": pick(ask("shuffled", name, TRAINED, **options)),
    }


def two(ask: Asked, store: str, runs: dict[str, int], name: str, pick: Callable[[Answer], pd.DataFrame]) -> dict[str, Any]:
    """The same figure of several runs."""
    return {title: pick(ask(store, name, run)) for title, run in runs.items()}


def tables(ask: Asked) -> dict[str, str]:
    """Markdown tables by the name that the report's marks have."""
    made: dict[str, str] = {}
    pair, twins = {"trained": TRAINED, "untrained": UNTRAINED}, {"switch": 1, "lopsided twin": 0}
    made["domain"] = table(by_layer(three(ask, "specialization", lambda a: a.figures(LABEL, estimator=BEYOND))))
    made["specialists"] = table(_specialists(ask))
    for given, key in (("nothing", "pos"), ("token", "pos-token"), ("token and document", "pos-document")):
        name = LABEL.replace("label; expert", "expert; label") if given == "nothing" else f"I(expert; label | {given}) (bits)"
        made[key] = table(
            by_layer(
                three(ask, "syntax", lambda a, n=name: a.figures(n, estimator="corrected", subset="upos"), kinds="upos"),
                digits=4,
            )
        )
    kinds = ask("mixtral", "syntax", TRAINED, kinds="upos").frames["kinds"]
    columns = ["given", "tokens that can tell", "H(label | given) (bits)"]
    made["open"] = table(
        [columns, *[[given, str(n), f"{bits:.3f}"] for given, n, bits in kinds[columns].itertuples(index=False)]]
    )
    made["load"] = table(by_layer(two(ask, "mixtral", pair, "load", _whole("normalized load entropy"))))
    made["entropy"] = table(by_layer(two(ask, "mixtral", pair, "load", _whole("normalized routing entropy"))))
    made["saturation"] = table(by_layer(saturation(ask), digits=3))
    made["together"] = table(_with_null(two(ask, "mixtral", pair, "structure", _closest)))
    made["repetition"] = table(_with_null(two(ask, "mixtral", pair, "structure", _repeated)))
    made["alike"] = table(_alike(ask))
    made["dimensions"] = table(by_layer(two(ask, "mixtral", pair, "dimensionality", _dimensions("residual")), digits=1))
    made["logits"] = table(by_layer(two(ask, "mixtral", pair, "dimensionality", _dimensions("router logits")), digits=2))
    made["index"] = table(_index(ask, pair))
    made["agreement"] = table(_agreement(ask))
    for key, name in SWITCH.items():
        made[key] = table(by_layer(two(ask, "switch", twins, "load", _whole(name))))
    made["vmoe"] = table(_vmoe(ask))
    made["capacity"] = table(_capacity(ask))
    return made


def _whole(name: str) -> Callable[[Answer], pd.DataFrame]:
    return lambda answer: (
        answer.figures(name, subset="").drop_duplicates(["stack", "layer"]).assign(p=float("nan"), q=float("nan"))
    )


def _closest(answer: Answer) -> pd.DataFrame:
    return answer.figures("co-activation, mean of closest partners", estimator="paper")


def _repeated(answer: Answer) -> pd.DataFrame:
    return answer.figures("repetition, first choice", estimator="against load", subset="")


def _dimensions(stream: str) -> Callable[[Answer], pd.DataFrame]:
    def pick(answer: Answer) -> pd.DataFrame:
        frame = answer.figures("participation_ratio", estimator="unbiased", subset=stream)
        return frame[frame["expert"].isna()]

    return pick


def _with_null(columns: dict[str, pd.DataFrame]) -> list[list[str]]:
    rows = [["layer", *[f"{c}{w}" for c in columns for w in ("", ", null")]]]
    parts = [frame.reset_index(drop=True) for frame in columns.values()]
    for i, at in parts[0].iterrows():
        cells = [cell for f in parts for cell in (said(f.loc[i]), f"{f.loc[i, 'null_mean']:.3f}")]
        rows.append([f"{at['stack']} {at['layer']}", *cells])
    return rows


def _specialists(ask: Asked) -> list[list[str]]:
    rows = [["of 32 experts", "that pass FDR 5 % for a domain", "largest lift"]]
    for title, store, run in RUNS:
        found = ask(store, "specialization", run).frames["specialists"]
        count = len(found[["router", "expert"]].drop_duplicates())
        rows.append([title, str(count), f"{found['lift'].max():.2f} ({found.iloc[0]['subset']})" if count else "–"])
    return rows


def saturation(ask: Asked) -> dict[str, pd.DataFrame]:
    """Overlap of every checkpoint's choices with the last one's."""
    steps = {"step 0": UNTRAINED, "step 24": 0, "step 240": 1, "step 960": 2}
    return {step: ask("mixtral", "diff", run, other=TRAINED).figures("router saturation") for step, run in steps.items()}


def _index(ask: Asked, pair: dict[str, int]) -> list[list[str]]:
    found = {title: ask("mixtral", "dimensionality", run).figures("hierarchy_index") for title, run in pair.items()}
    streams = next(iter(found.values()))["subset"]
    rows = [
        [said(f[f["subset"] == s].iloc[0], 2) if (f["subset"] == s).any() else "–" for f in found.values()] for s in streams
    ]
    return [["index", *found], *[[s, *row] for s, row in zip(streams, rows)]]


def _agreement(ask: Asked) -> list[list[str]]:
    """Spearman's correlation of summed-up scores with frequency, over the experts of a layer."""
    rows = [["layer", "EAN ~ frequency", "REAP ~ frequency", "REAP ~ mean gate", "most and least REAP"]]
    answer = ask("mixtral", "importance", TRAINED)
    scores = {n: answer.figures(n).query("estimator != 'released code'") for n in ("frequency", "mean gate", "ean", "reap")}
    for layer in sorted(scores["reap"]["layer"].unique()):
        at = {n: f[f["layer"] == layer].sort_values("expert")["value"].reset_index(drop=True) for n, f in scores.items()}
        pairs = [
            at[a].corr(at[b], method="spearman")
            for a, b in (("ean", "frequency"), ("reap", "frequency"), ("reap", "mean gate"))
        ]
        rows.append([f"decoder {layer}", *[f"{r:.2f}" for r in pairs], f"{at['reap'].max():.2f}, {at['reap'].min():.2f}"])
    return rows


def _alike(ask: Asked) -> list[list[str]]:
    """Cosines of weights, and whether like experts run together."""
    rows = [["model", "layer", "router rows, mean", "largest pair", "experts, mean", "router rows ~ co-activation"]]
    runs = (
        ("trained Mixtral", "mixtral", TRAINED),
        ("untrained", "mixtral", UNTRAINED),
        ("Switch", "switch", 1),
        ("V-MoE", "vmoe", 2),
    )
    for title, store, run in runs:
        answer = ask(store, "structure", run)
        for _, at in answer.figures("router weight cosine", estimator="mean over pairs").iterrows():
            wanted = [("router weight cosine", "largest pair"), ("expert weight cosine", "mean over pairs")]
            found = [answer.figures(n, estimator=e, router=at["router"])["value"].iloc[0] for n, e in wanted]
            both = answer.figures("router weight cosine ~ co-activation", router=at["router"])
            words = [said(both.iloc[0], 2) if len(both) else "–"]
            rows.append([title, f"{at['stack']} {at['layer']}", *[f"{v:.3f}" for v in (at["value"], *found)], *words])
    return rows


def _vmoe(ask: Asked) -> list[list[str]]:
    answer = ask("vmoe", "specialization", 2)
    wanted = {
        "class": answer.figures(LABEL, estimator=BEYOND),
        "patch position": answer.figures(PATCH, estimator=BEYOND, subset="patch position"),
    }
    return by_layer(wanted)


def _capacity(ask: Asked) -> list[list[str]]:
    """Dropped as executed at a capacity ratio, beside what the run without it would have dropped by the simulation."""
    whatif = ask("vmoe", "load", 2).frames["capacity"]
    rows = [["layer", "ratio", "executed", "what-if", "what-if, weight lost", "weight lost if prioritized"]]
    for run, ratio in ((0, 0.5), (1, 0.25)):
        for _, at in ask("vmoe", "load", run).figures("dropped share").iterrows():
            here = whatif[(whatif["layer"] == at["layer"]) & (whatif["ratio"] == ratio)].set_index("order")
            words = [
                here.loc["vanilla", "dropped_share"],
                here.loc["vanilla", "dropped_weight"],
                here.loc["batch prioritized", "dropped_weight"],
            ]
            rows.append([f"{at['stack']} {at['layer']}", str(ratio), f"{at['value']:.4f}", *[f"{w:.4f}" for w in words]])
    return rows


def refusal(ask: Asked, *what: Any, **options: Any) -> str:
    """The sentence of an analysis that cannot answer."""
    try:
        return ask(*what, **options).reading
    except AnalysisError as error:
        return str(error)
