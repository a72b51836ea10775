"""What a run that was imported lacks, as its capture says: for pages, analyses and reports."""

import json
from collections.abc import Mapping
from typing import Any


def lacks(capture: Any) -> list[str]:
    """Sentences on what the capture of a run (`runs.capture`, as JSON or read) has not; none for a run that was traced."""
    said = json.loads(capture) if isinstance(capture, str) else capture
    found = said.get("lacks") if isinstance(said, Mapping) and said.get("imported") else None
    return [str(text) for text in found.values()] if isinstance(found, Mapping) else []


def ranked(capture: Any) -> bool:
    """Whether the order of experts is that of their weights, as far as this run says."""
    said = json.loads(capture) if isinstance(capture, str) else capture
    found = said.get("lacks") if isinstance(said, Mapping) and said.get("imported") else None
    return not (isinstance(found, Mapping) and "ranks" in found)


def source(capture: Any) -> str | None:
    """What a run was imported from; None if it was traced."""
    said = json.loads(capture) if isinstance(capture, str) else capture
    return str(said["imported"]) if isinstance(said, Mapping) and said.get("imported") else None
