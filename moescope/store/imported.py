"""What a run that was imported lacks, as its capture says: for pages, analyses and reports."""

import json
from collections.abc import Mapping
from typing import Any


def lacks(capture: Any) -> list[str]:
    """Sentences on what the capture of a run (`runs.capture`, as JSON or read) has not; none for a run that was traced."""
    return [str(text) for text in _lacks(capture).values()]


def ranked(capture: Any) -> bool:
    """Whether the order of experts is that of their weights, as far as this run says."""
    return not {"ranks", "decisions"} & _lacks(capture).keys()


def weighted(capture: Any) -> bool:
    """Whether assignments have the weights of their experts, as far as this run says."""
    return not {"weights", "decisions"} & _lacks(capture).keys()


def counts_only(capture: Any) -> bool:
    """Whether this run holds counts of experts, and no decision."""
    return "decisions" in _lacks(capture)


def logits(capture: Any) -> bool:
    """Whether entropies, margins and log-sum-exps are known, as far as this run says."""
    return not {"summaries", "decisions"} & _lacks(capture).keys()


def source(capture: Any) -> str | None:
    """What a run was imported from; None if it was traced."""
    said = _said(capture)
    return str(said["imported"]) if said else None


def _said(capture: Any) -> Mapping[str, Any]:
    """What the capture of an imported run says; nothing for a run that was traced."""
    said = json.loads(capture) if isinstance(capture, str) else capture
    return said if isinstance(said, Mapping) and said.get("imported") else {}


def _lacks(capture: Any) -> Mapping[str, Any]:
    found = _said(capture).get("lacks")
    return found if isinstance(found, Mapping) else {}
