"""The tokens of a conversation, and the labels of each."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...inputs import spell
from .render import Rendered

Offsets = list[tuple[int, int]]
KINDS = ("role", "turn", "reasoning")


@dataclass(frozen=True)
class Tokens:
    """Ids, where each is in the text (characters from, to), and its labels by kind (None: no such label)."""

    ids: list[int]
    offsets: Offsets
    labels: dict[str, list[str | None]]


def tokens(tokenizer: Any, rendered: Rendered, where: str) -> Tokens:
    """What the tokenizer makes of a rendered conversation.

    A token that lies in several spans is of the one that has most of its characters, of the first of several that have as many.
    InputError where nobody knows where tokens are.
    """
    ids, offsets = _encoded(tokenizer, rendered.text)
    if offsets is None:
        raise InputError(
            f"{where}: roles cannot be told, for {type(tokenizer).__name__} does not say where its tokens are in the text, and "
            "what they spell is not the text: give texts instead, or a fast tokenizer"
        )
    return Tokens(ids, offsets, labels_at(rendered, offsets))


def labels_at(rendered: Rendered, offsets: Offsets) -> dict[str, list[str | None]]:
    """{kind: the label of each token} of tokens of a rendered conversation; kinds that none has are left out."""
    places = filled(offsets, rendered.text)
    spans = [rendered.spans[place].labels for place in _most(rendered, places)]
    labels = {kind: [span.get(kind) for span in spans] for kind in KINDS}
    return {kind: values for kind, values in labels.items() if any(v is not None for v in values)}


def _encoded(tokenizer: Any, text: str) -> tuple[list[int], Offsets | None]:
    """As `apply_chat_template(tokenize=True)`: the template has put the special tokens where they belong."""
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return ids, spell(text, pieces, [False] * len(ids), lambda some: tokenizer.decode(ids[some]))


def filled(offsets: Sequence[tuple[int, int]], text: str) -> Offsets:
    """Offsets of which none is empty. Tokens of white space that a tokenizer gives no characters have those between the tokens
    before and behind; one that has none at all (a mark that is put before a text) stands where the next one does."""
    found: Offsets = []
    reached = 0
    for start, end in offsets:
        if end <= start:
            first = min(reached, start) if start > reached else max(reached, start)
            start = min(first, max(len(text) - 1, 0))
            end = max(end, start + 1)
            reached = end if text[start:end].isspace() else reached
        else:
            reached = max(reached, end)
        found.append((start, end))
    return found


def _most(rendered: Rendered, places: Offsets) -> list[int]:
    """The number of the span that has most of each place."""
    starts = [span.start for span in rendered.spans]
    found = []
    for start, end in places:
        first, last = bisect_right(starts, start) - 1, bisect_right(starts, max(end - 1, start)) - 1
        some = range(max(first, 0), last + 1)
        found.append(max(some, key=lambda n: min(end, rendered.spans[n].end) - max(start, rendered.spans[n].start)))
    return found
