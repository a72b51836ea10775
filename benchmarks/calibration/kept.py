"""What was found so far, by kind of world and analysis, and which analyses are asked of which worlds."""

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
TEXT = ("syntax", "syntax_experts", "path_probe", "senses", "signatures")
COUNTS = ("specialization", "load", "structure", "importance")
TOLD = ("conditions", "modality", "depth")  # of forwards that were told something, and of routers that skip
PAIRS = ("grouping", "diff")  # of two runs
EVEN = ("committee", "predictability", "dimensionality")
ASKED: dict[str, tuple[str, ...]] = {  # where documents are many, what deals them
    "equal": ("specialization", "load", "structure", "dimensionality", *PAIRS),
    "short": ("specialization", "load", "importance", "committee"),
    "short, leaning": (*COUNTS, *EVEN, *TEXT, *PAIRS),
    "many": ("specialization", "committee"),
    "most": ("specialization",),
    "tilt": ("specialization", "structure", "predictability", "dimensionality", *PAIRS),
    "tokens": ("specialization", "structure", *TEXT),
    "topics": ("specialization", *TEXT),
    "told": TOLD,
    "told, short, leaning": TOLD,
    "own words": ("specialization", "structure", *TEXT),
}
OPTIONS: dict[str, dict[str, Any]] = {"signatures": {"seeds": 0}}  # maps have no test, and cost most


def kept() -> dict[str, Any]:
    """{"worlds": {kind: {analysis: {"worlds", "found", "said", "covered"}}}, "power"}; see `add`."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"worlds": {}, "power": {}}


def keep(found: dict[str, Any]) -> None:
    """Whole or not at all."""
    new = RESULTS.with_suffix(".new")
    new.write_text(json.dumps(found, sort_keys=True, indent=1) + "\n")
    os.replace(new, RESULTS)


def add(found: dict[str, Any], kind: str, name: str, said: list[str], covered: dict[str, tuple[int, int]]) -> None:
    """One more world."""
    of = found["worlds"].setdefault(kind, {}).setdefault(name, {"worlds": 0, "found": 0, "said": {}, "covered": {}})
    of["worlds"] += 1
    of["found"] += bool(said)
    for figure in said:
        of["said"][figure] = of["said"].get(figure, 0) + 1
    for figure, (hits, n) in covered.items():
        before = of["covered"].get(figure, [0, 0, 0])
        of["covered"][figure] = [before[0] + hits, before[1] + n, before[2] + 1]


def asked(found: dict[str, Any], kind: str, name: str) -> int:
    """Worlds of a kind that an analysis was asked about."""
    return int(found["worlds"].get(kind, {}).get(name, {"worlds": 0})["worlds"])
