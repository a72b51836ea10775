"""The verdict of an answer: one sentence that can be signed, the few figures that carry it, and what to ask next."""

import shlex
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ....store import Store
from . import saying

MOST = 8  # rows that carry a verdict


@dataclass(frozen=True)
class Verdict:
    """What follows from an answer.

    follows: what it is, how large, with its unit and interval. evidence: on how many documents, against which null, q and its
    family. limits: what it does not show. rows: figures that carry it, the clearest first. ask: the command to go on with, with
    {store}, {run}, {model} and {data} to be filled in.
    """

    follows: str
    evidence: str = ""
    limits: str = ""
    rows: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    ask: str = ""

    @property
    def sentence(self) -> str:
        """All of it, as one sentence."""
        said = f"{self.follows} ({self.evidence})" if self.evidence else self.follows
        return f"{said}; {self.limits}." if self.limits else f"{said.removesuffix('.')}."

    def ready(self, store: Store, run: int) -> "Verdict":
        """The same with a command that can be typed."""
        rows = store.rows("select m.name, r.dataset from runs r left join models m using (model) where run = ?", [run])
        model, data = rows[0] if rows else (None, None)
        known = {"store": store.path, "run": run, "model": model or "MODEL", "data": data or "DATA"}
        return replace(self, ask=self.ask.format(**{name: shlex.quote(str(value)) for name, value in known.items()}))


def verdict(
    follows: str, row: saying.Row, frame: pd.DataFrame, limits: str, rows: pd.DataFrame, ask: str, noun: str = ""
) -> Verdict:
    """A verdict whose evidence is that of the figure `row` of `frame`; `noun` names the members of its q's family."""
    return Verdict(follows, saying.evidence(row, frame, noun), limits, rows.head(MOST), ask)


def analyze(name: str, **options: Any) -> str:
    """The command that asks an analysis of the same run."""
    return f"moescope analyze {name} {{store}} --run {{run}}" + "".join(
        f" -p {key}={value}".replace("{", "{{").replace("}", "}}") for key, value in options.items()
    )


def ablate(row: saying.Row) -> str:
    """The command that takes the expert of a figure away."""
    return f"moescope ablate {{model}} --data {{data}} --store {{store}} --experts {row['layer']}:{row['expert']}"


def clearest(frame: pd.DataFrame) -> pd.DataFrame:
    """Findings first: by q, as far as the draws of its null know it, then by size."""
    known = frame["q"].clip(lower=pd.Series([saying.least(row) for _, row in frame.iterrows()], frame.index, dtype=float))
    ranked = frame.assign(known=known).sort_values(["known", "value"], ascending=[True, False], kind="stable")
    return ranked.drop(columns="known")


def signed(said: str, rows: pd.DataFrame, frame: pd.DataFrame, limits: str, ask: str, unit: str | None = None) -> Verdict:
    """A sentence that names its figures itself: with the evidence of the clearest of `rows`, which are of `frame`."""
    return replace(of_figures(said, frame, rows if len(rows) else frame, unit), limits=limits, ask=ask)


def of_figures(said: str, frame: pd.DataFrame, rows: pd.DataFrame | None = None, unit: str | None = None) -> Verdict:
    """The verdict of an analysis that gives a sentence only: its figures (or `rows` of them) by q stand behind it."""
    if not {"q", "value", "units"} <= set(frame) or frame.empty:
        return Verdict(said)
    every = (frame if rows is None else rows).dropna(subset=["value"])
    tested = every[every["q"].notna()]
    carried = (clearest(tested) if len(tested) else every).head(MOST)
    if carried.empty:
        return Verdict(said)
    row = carried.iloc[0]
    evidence = f"{saying.named(row, frame)}: {_amount(row, carried, unit)}; {saying.evidence(row, frame)}"
    return Verdict(said.removesuffix("."), evidence, "", carried)


def _amount(row: saying.Row, carried: pd.DataFrame, unit: str | None) -> str:
    """The figure; of information that came out below nothing (a guess on held-out documents) what it stays under."""
    bits = (saying.unit_of(str(row["name"])) if unit is None else unit) == "bits"
    return saying.most(carried, unit) if bits and row["value"] < 0 else saying.amount(row, unit)
