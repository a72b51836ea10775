"""The pixels behind patches and pieces of the store that is shown."""

from typing import Any

from moescope.app.queries import store_access
from moescope.show import pixels
from moescope.show.pixels import Key, data_url

__all__ = ["data_url", "kept_url", "panels"]


def kept_url(sequence: int) -> str | None:
    """The first picture that the store keeps of a sequence: of patches that a tower sees of it."""
    return pixels.kept_url(store_access.rows, sequence)


def panels(sequence: int) -> dict[Key, dict[str, Any]]:
    """Of every picture that a sequence speaks of, by medium, frame and view: its image, and tokens down and across."""
    return pixels.panels(store_access.rows, sequence)
