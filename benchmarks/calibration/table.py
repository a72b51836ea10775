"""docs/calibration.md and the block `calibration` of README.md, from results.json: python -m benchmarks.calibration.table"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.kept import ASKED, kept

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"


def coverage(found: dict[str, Any]) -> dict[str, list[int]]:
    """{figure: [intervals that hold the truth, intervals, worlds]}."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for answers in found["worlds"].values():
        for answer in answers.values():
            for figure, more in answer["covered"].items():
                counted[figure] = [a + b for a, b in zip(counted[figure], more)]
    return dict(sorted(counted.items()))


def levels(found: dict[str, Any]) -> str:
    """Share of worlds with any finding, by analysis and kind of world."""
    kinds, names = list(ASKED), {name for answers in found["worlds"].values() for name in answers}
    lines = ["| analysis | " + " | ".join(kinds) + " | all |", "|---" * (len(kinds) + 2) + "|"]
    for name in sorted(names):
        cells = [found["worlds"].get(kind, {}).get(name) for kind in kinds]
        hits, n = (sum(cell[what] for cell in cells if cell) for what in ("found", "worlds"))
        said = [f"{cell['found']} of {cell['worlds']}" if cell else "" for cell in cells]
        lines.append(f"| `{name}` | " + " | ".join(said) + f" | **{hits / max(n, 1):.1%}** of {n} {_span(hits, n)} |")
    return "\n".join(lines)


def _span(hits: int, n: int) -> str:
    """Wilson's 95 % interval of a share."""
    p, z = hits / max(n, 1), 1.96
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return f"[{max(low, 0):.1%}, {high:.1%}]"


def page(found: dict[str, Any]) -> str:
    """The page."""
    said: Counter[str] = Counter()
    for answers in found["worlds"].values():
        for answer in answers.values():
            said.update(answer["said"])
    most = ", ".join(f"{figure.strip()} ({n})" for figure, n in said.most_common(6)) or "nothing"
    covers = [
        f"| {figure.replace('|', chr(92) + '|')} | {hits / n:.1%} | {n} | {n_worlds} |"
        for figure, (hits, n, n_worlds) in coverage(found).items()
    ]
    lines = [PREFACE, levels(found), "", f"What was found, most often first: {most}.", "", COVERED, *covers]
    for name, case in found["power"].items():
        lines += ["", f"### Power: {name}, {case['worlds']} worlds each", "", *_power(case)]
    return "\n".join(lines).rstrip() + "\n"


def _power(case: dict[str, Any]) -> list[str]:
    by, planted = case.get("by", "specialization"), "strength" if "by" in case else "more than the even share by"
    head = [f"| {planted} | named by `{by}` (q ≤ .05) | a chi-square (p ≤ .05, over all routers or pairs) |", "|---|---|---|"]
    shown = "{:.2f}" if "by" in case else "{:.0%}"
    return head + [
        f"| {shown.format(float(s))} | {case['named'][s]:.0%} | {case['chi-square'][s]:.0%} |" for s in case["named"]
    ]


PREFACE = """# Calibration

Made by `make calibrate`, from [results.json](../benchmarks/calibration/results.json); the numbers of worlds are what there was
time for, so that a level may be quoted only with its interval. Worlds are stores of random routers in which nothing is to be
found (`tests/builders/stores/worlds.py`): 48 documents of equal length; one label's documents a twentieth as long (and every
document leaning to experts of its own); 1000 and 4000 documents of one label against 40; uneven load; routing by token id;
topics that move labels and routing alike; words that one label has alone, in documents that lean; and `told`: three forwards
that were told a timestep and a class, of text and patches, with routers that skip blocks (once with one class's documents a
tenth as long). `grouping` and `diff` are asked of two runs that decide by themselves. E runs from 4 to 128, k from 1 to 8.
Every analysis is asked as anybody asks it (`signatures` without maps, which have no test).

A row marked as a contrast is no claim. Nor does it count where it is true of the world by its making (`TRUE` in
benchmarks/calibration/asked.py; a judgement, and these are its reasons):

* `tilt` gives experts uneven logits: load, CV, Gini, MaxVio, dead and cold experts, importance are uneven, and it is right to
  say so.
* `tokens` and `topics` let the token's id move the logits of every layer: experts do follow the input id, and two layers (and
  two experts of one layer) that follow the same ids go together, which the next layer's expert, paths and pairs rightly show.
* Not asked at all is what has the answer yes in a world: load, importance and committees where ids or topics are unevenly
  frequent, predictability where ids or topics predict, and participation ratios where logits share what moves them.

## Worlds with any finding at q ≤ .05

Wanted: 5 % or less, within the Monte-Carlo error in brackets.
"""
COVERED = """## Intervals that hold the truth, with 24 documents or more

Wanted: 93 to 97 %. Truth: the even share, or 0 for information less its null mean. Intervals of one world hang together.

| figure | coverage | intervals | worlds |
|---|---|---|---|"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(kept()))
    print(PAGE)


if __name__ == "__main__":
    main()
