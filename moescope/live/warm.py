"""A first prompt for nobody: it proves the model, fills its caches, and shows by which rule each router ranks."""

import io
from pathlib import Path

import numpy as np

from ..errors import InputError
from .asked import Asked
from .generation import Stop
from .listening import Heard, Row
from .ready import Ready, learned
from .session import Session

TEXT = "In the beginning there was one router, and it sent 2 of 8 tokens to the left: def route(x): return x + 1."


def warm(ready: Ready, store: Path) -> None:
    """Run it. ModelError where the model cannot be traced; a model that needs another first input is proved on that."""
    events: list[Row] = []
    heard = Heard()
    try:
        if ready.loaded.pipe is None:
            Session(ready, _first(ready), store, events.append, Stop(60.0), heard).run()
    except InputError:
        events.clear()
    finally:
        if heard.writer is not None:
            _learned(ready, heard, events)
            heard.writer.part.remove()


def _first(ready: Ready) -> Asked:
    if ready.loaded.reads == "text":
        return Asked(ready.loaded.name, TEXT, tokens=2)
    from PIL import Image

    held = io.BytesIO()
    grey = (np.add.outer(np.arange(28), np.arange(28)) * 4).astype(np.uint8)
    Image.fromarray(grey).save(held, "png")
    return Asked(ready.loaded.name, image=held.getvalue())


def _learned(ready: Ready, heard: Heard, events: list[Row]) -> None:
    assert heard.writer is not None
    decisions = [row for event in events for row in event.get("decisions", [])]
    learned(ready, heard.writer.part.head["routers"], decisions, heard.logits or [])
