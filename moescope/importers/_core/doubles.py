"""Captures that hold a request twice: its decisions would count double."""

import zlib

import numpy as np

from .captured import Captured, Fault, Notes


class Doubles:
    """Looks at every sequence that comes in, and keeps a few bytes of each."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def check(self, one: Captured, notes: Notes) -> None:
        """Fault for a request that came before with the same content; one of the same name with another is counted."""
        if one.request is None or not one.named:
            return
        content = zlib.crc32(np.ascontiguousarray(one.experts).data, one.length)
        if one.tokens is not None:
            content = zlib.crc32(np.ascontiguousarray(one.tokens).data, content)
        before = self._seen.get(one.request)
        self._seen[one.request] = content
        if before == content:
            raise Fault(
                f"{one.where}: request {one.request[:80]} came before with the same tokens and experts, so that it would count "
                "double: a line was kept twice; take it out, or leave it out by --keep-going"
            )
        if before is not None:
            notes.count("{n} requests have a name that came before, with other tokens or experts (all are stored)")
