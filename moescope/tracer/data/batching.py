"""From windows to batches: of so many sequences, or of so many tokens, for which windows that are drawn together are sorted by
length. No more is drawn ahead.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

from ...errors import InputError
from ...inputs import Stream
from ...proof import images_per_group
from .drawing import Drawn
from .drawing_notes import Notes
from .windows import Window

AHEAD = 32  # batches by tokens that are drawn together
Group = tuple[dict[str, Any], list[list[Window]]]


@dataclass(frozen=True)
class Reached:
    """How far a trace has come, as its run keeps it: batches and sequences done, of examples and windows in `total`, None of a
    stream; rows `left_out` as bad; and of a stream the `place` from which it is gone on with (drawing.py)."""

    batches: int
    sequences: int
    examples: int | None
    total: int | None
    left_out: int = 0
    place: dict[str, Any] | None = None


@dataclass(frozen=True)
class Batch:
    """Windows that run together, and how far the trace is when they have."""

    windows: list[Window]
    reached: Reached


def all_rows(drawn: Drawn) -> list[Window]:
    """All windows of a data set, so that whatever is wrong with one is said before anything is written."""
    return _whole_groups(list(drawn), images_per_group(drawn.loaded.model), drawn.notes)


def batches_of(drawn: Drawn, rows: list[Window] | None, done: int) -> Iterator[Batch]:
    """The batches behind those that are done, the first one drawn already. InputError if there is nothing to trace."""
    together = images_per_group(drawn.loaded.model)
    before = drawn.place.windows if rows is None else 0
    found = _groups(drawn, iter(drawn if rows is None else rows), together)
    return _numbered(drawn, _drawn_first(found, drawn.data.name, together), before, rows, done)


def _numbered(drawn: Drawn, found: Iterator[Group], sequences: int, rows: list[Window] | None, done: int) -> Iterator[Batch]:
    examples, total = (None, None) if isinstance(drawn.data, Stream) else (len(drawn.data), len(rows or ()))
    for place, batches in found:
        kept = place if rows is None else None
        for number, windows in enumerate(batches, place["batches"] + 1):
            sequences += len(windows)
            if number > done:
                yield Batch(windows, Reached(number, sequences, examples, total, drawn.left_out(), kept))


def _groups(drawn: Drawn, rows: Iterator[Window], together: int) -> Iterator[Group]:
    """Batches that are drawn together, and the place before them; `together`: images that are routed as a group."""
    batches = drawn.place.batches
    while True:
        place = asdict(drawn.place) | {"batches": batches, "notes": drawn.notes.as_dict()}
        if drawn.asked.batch_tokens is None:
            chunk = list(islice(rows, drawn.asked.batch_size))
            made = [_whole_groups(chunk, together, drawn.notes) if len(chunk) < drawn.asked.batch_size else chunk]
        else:
            made = list(_by_tokens(_ahead(rows, drawn.asked.batch_tokens), drawn.asked.batch_tokens))
        made = [batch for batch in made if batch]
        if not made:
            return
        yield place, made
        batches += len(made)


def _whole_groups(rows: list[Window], together: int, notes: Notes) -> list[Window]:
    """Without the last images, which do not fill a group."""
    rest = len(rows) % together
    notes.ungrouped = (rest, together) if rest else notes.ungrouped
    return rows[: len(rows) - rest]


def _ahead(rows: Iterator[Window], most: int) -> list[Window]:
    """Windows that fill about AHEAD batches, by length."""
    found: list[Window] = []
    tokens = 0
    for window in rows:
        found.append(window)
        tokens += len(window)
        if tokens >= AHEAD * most:
            break
    return sorted(found, key=len)


def _by_tokens(rows: list[Window], most: int) -> Iterator[list[Window]]:
    """Batches of no more places than `most`, padding included; a window that is longer is a batch of its own."""
    batch: list[Window] = []
    width = 0, 0  # the longest so far, of both sides
    for window in rows:
        wider = max(width[0], len(window.ids or ())), max(width[1], len(window.decoder_ids or ()))
        if batch and (len(batch) + 1) * sum(wider) > most:
            yield batch
            batch, wider = [], (len(window.ids or ()), len(window.decoder_ids or ()))
        batch.append(window)
        width = wider
    if batch:
        yield batch


def _drawn_first(found: Iterator[Group], name: str, together: int) -> Iterator[Group]:
    """The same, once its first group is there. InputError where there is none."""
    first = next(found, None)
    if first is None:
        raise InputError(f"{name} gives nothing to trace" + (f": it needs at least {together} images" if together > 1 else ""))
    return chain([first], found)
