"""What the three measures share: information against labels dealt anew, a table, and their place in the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

import moescope.statistics as st
from moescope.charts import to_svg
from moescope.models import zoo
from specimens.systems.common import begun

REPORT = Path("reports/beyond-text.md")
DRAWS = 199


def both(name: str, seed: int) -> dict[str, Any]:
    """The shipped model and the one that its training began with."""
    return {"trained": zoo.trained(name), "untrained": begun(name, zoo.recipe(name)["build"], seed)}


def also(name: str, folder: str | Path) -> tuple[Any, Any, int]:
    """The model of other weights that a training wrote into a folder, the one that it began with, and its seed."""
    said = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    seed = said["recipe"]["seed"]
    model = begun(name, said["build"], seed)
    model.load_state_dict(load_file(Path(folder) / f"{name}.safetensors"))
    return model, begun(name, said["build"], seed), seed


def information(tables: np.ndarray) -> np.ndarray:
    """Bits that experts tell of what is on the axis before, given the one before that: tables (..., S, A, E) → (...)."""
    each, weight = st.mutual_information(tables), tables.sum((-2, -1))
    return (each * weight).sum(-1) / np.maximum(weight.sum(-1), 1)


def within(counts: np.ndarray, seed: int = 0) -> np.ndarray:
    """(DRAWS, S, A, E) sums of counts (units, S, A, E) after A was dealt anew within every unit and stratum."""
    rng = np.random.default_rng(seed)
    orders = (rng.random(counts.shape[:3]).argsort(-1)[..., None] for _ in range(DRAWS))
    return np.stack([np.take_along_axis(counts, order, 2).sum(0) for order in orders])


def across(counts: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts (units, S, E) by label (units, S, A, E), and (DRAWS, S, A, E) sums after labels were dealt anew over units."""
    known, rng = np.eye(labels.max() + 1), np.random.default_rng(seed)
    by = np.einsum("use,ua->usae", counts, known[labels])
    return by, np.stack([np.einsum("use,ua->sae", counts, known[rng.permutation(labels)]) for _ in range(DRAWS)])


def told(counts: np.ndarray, null_sums: np.ndarray) -> dict[str, Any]:
    """Information of counts (units, S, A, E) less the mean of its null, with an interval over units, and p."""
    null = information(null_sums)
    value, low, high = st.over_documents(information, counts)
    mean = null.mean()
    return {"value": value - mean, "low": low - mean, "high": high - mean, "null": mean, "p": float(st.p_value(value, null))}


def cell(row: dict[str, Any], digits: int = 3) -> str:
    """Value and interval as text."""
    return f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


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


def ordered(rows: Sequence[Sequence[Any]], sizes: Sequence[int], place: Callable[[Any], tuple[int, ...]]) -> np.ndarray:
    """An array of counts from rows whose last column is the count."""
    made = np.zeros(sizes)
    for row in rows:
        made[place(row)] += row[-1]
    return made
