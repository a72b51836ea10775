"""What the three measures share: the models, figures of analyses as text, a table, and their place in the report."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file

from moescope.analyses import Answer
from moescope.charts import to_svg
from moescope.models import zoo
from specimens.systems.common import begun

REPORT = Path("reports/beyond-text.md")


def both(name: str, seed: int) -> dict[str, Any]:
    """The shipped model and the one that its training began with."""
    return {"trained": zoo.trained(name), "untrained": begun(name, zoo.recipe(name)["build"], seed)}


def also(name: str, folder: str | Path) -> tuple[Any, Any, int]:
    """The model of other weights that a training wrote into a folder, the one that it began with, and its seed."""
    said = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    seed = said["recipe"]["seed"]
    model = begun(name, said["build"], seed)
    once = load_file(Path(folder) / f"{name}.safetensors")  # of weights that steps of a recursion share: one name
    lacks, _ = model.load_state_dict(once, strict=False)
    named = dict(model.named_parameters(remove_duplicate=False))
    if there := {id(named[key]) for key in lacks} - {id(named[key]) for key in once if key in named}:
        raise KeyError(f"{folder} lacks {len(there)} weights of {name}")
    return model, begun(name, said["build"], seed), seed


def cell(row: Any, digits: int = 3) -> str:
    """Value and interval of a row of figures as text."""
    return f"{row['value']:.{digits}f} [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]"


def q_said(rows: Sequence[Any], what: str = "q") -> str:
    """The largest q of some rows of figures."""
    most = max(float(row[what]) for row in rows)
    return "< 0.001" if most < 0.001 else f"{most:.3f}"


def by_layer(figures: pd.DataFrame) -> list[Any]:
    """Its rows, one a layer, in order. ValueError where a layer has two."""
    if figures["layer"].duplicated().any():
        raise ValueError("a layer has two figures of this name")
    return [row for _, row in figures.sort_values("layer").iterrows()]


def verdict(name: str, answer: Answer) -> str:
    """What `moescope analyze` says of one model, as a line of a list."""
    return f"* {name}: {answer.reading}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def fill(name: str, text: str, report: Path = REPORT) -> None:
    """Put text between the marks of this name. KeyError where the report has none."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    whole = report.read_text(encoding="utf-8")
    if not marks.search(whole):
        raise KeyError(f"{report} has no marks for {name}")
    report.write_text(marks.sub(lambda m: m[1] + text + "\n" + m[2], whole), encoding="utf-8")
    print(text, flush=True)


def draw(name: str, chart: Any) -> None:
    """Write a figure of the report."""
    (REPORT.parent / "figures" / f"beyond-{name}.svg").write_text(to_svg(chart, small=True), encoding="utf-8")
