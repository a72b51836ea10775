"""SHA-256 over what examples hold, in order."""

import hashlib
import json
from collections.abc import Iterable

from .types import Example


class Digest:
    """Of the examples so far."""

    def __init__(self) -> None:
        self._found, self.count = hashlib.sha256(), 0

    def add(self, e: Example) -> None:
        """One more."""
        found = self._found
        found.update(b"\0" if self.count else b"")
        self.count += 1
        found.update((e.text or "").encode())
        for array in (e.input_ids, e.image):
            if array is not None:
                found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        for medium in e.media:
            found.update(medium.digest())
        if e.messages:
            found.update(json.dumps([e.messages, e.tools], sort_keys=True, default=repr).encode())
        if e.labels or e.words:
            more = [dict(e.labels), [[w.start, w.end, dict(w.labels)] for w in e.words]]
            found.update(json.dumps(more, sort_keys=True).encode())
        if e.spans or e.token_labels:
            marks = [[[s.start, s.end, s.kind, s.value] for s in e.spans], {k: list(v) for k, v in e.token_labels.items()}]
            found.update(json.dumps(marks, sort_keys=True).encode())

    def hexdigest(self) -> str:
        """As text; more may be added."""
        return self._found.hexdigest()


def digest(examples: Iterable[Example]) -> str:
    """Of all of them."""
    found = Digest()
    for example in examples:
        found.add(example)
    return found.hexdigest()
