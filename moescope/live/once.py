"""One prompt without a server: what `moescope try` does."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..inputs._reading.bounds import read_bytes
from ..store.write.many.moved import join_packed, packed
from ..store.write.unfinished_run import UnfinishedRun
from .asked import Asked
from .generation import Stop
from .listening import Heard, Row
from .ready import begin
from .session import Session

LONG = 7 * 86400.0  # seconds; nobody waits in line behind it


def once(
    asked: Asked, how: Mapping[str, Any], store: Path | None, image: Path | None, say: Callable[[str], object]
) -> int | None:
    """Run it, `say` what the model says, and join the run to `store`; gives its number there. Errors as of `Session`."""
    asked = asked if image is None else replace(asked, image=read_bytes(image, str(image)))
    ready = begin(asked.model, how)

    def tell(event: Row) -> None:
        if chosen := event.get("next", {}).get("chosen"):
            say(chosen["text"])
        for number, name, log_p in event.get("next", {}).get("classes", [])[:1]:
            say(f"class {number} ({name}), log-probability {log_p:.3f}")

    with tempfile.TemporaryDirectory(prefix="moescope-try-") as folder:
        writer = Session(ready, asked, Path(folder) / "live.duckdb", tell, Stop(LONG), Heard({})).run()
        return None if store is None else join_packed(store, packed(UnfinishedRun(writer.part.path)))
