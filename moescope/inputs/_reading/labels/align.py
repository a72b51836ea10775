"""Which word does each subword token belong to, and which span of each kind?"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from ..types import Span, Word


def align(words: Sequence[Word | Span], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The index of the word that each token overlaps most, ties to the first; None where it overlaps none.

    `offsets` are (start, end) in characters of the same text, as fast tokenizers give them: special tokens (0, 0) and
    tokens of white space alone get None; the bytes of one character share its offsets and so its word.
    """
    order = sorted(range(len(words)), key=lambda i: words[i].start)
    starts = [words[i].start for i in order]
    reach = list(accumulate((words[i].end for i in order), max))  # the furthest end so far, for nested words

    def best(start: int, end: int) -> int | None:
        found, most = None, 0
        place = bisect_left(starts, end)
        while place > 0 and reach[place - 1] > start:
            place -= 1
            index = order[place]
            overlap = min(end, words[index].end) - max(start, words[index].start)
            if overlap > most or (overlap == most > 0 and found is not None and index < found):
                found, most = index, overlap
        return found

    return [best(int(start), int(end)) for start, end in offsets]


def label_tokens(
    spans: Sequence[Span], offsets: Sequence[tuple[int, int]]
) -> tuple[dict[str, list[str | None]], tuple[Span, ...]]:
    """{kind: the value that each token has, or None} by the rule of `align`, and the spans that label no token at all.

    Such a span holds white space alone, lies in what the tokenizer drops, or each of its tokens belongs more to another span of
    its kind.
    """
    kinds: dict[str, list[Span]] = {}
    for span in spans:
        kinds.setdefault(span.kind, []).append(span)
    found: dict[str, list[str | None]] = {}
    covered: set[int] = set()
    for kind, some in kinds.items():
        places = align(some, offsets)
        found[kind] = [None if place is None else some[place].value for place in places]
        covered |= {id(some[place]) for place in places if place is not None}
    return found, tuple(span for span in spans if id(span) not in covered)
