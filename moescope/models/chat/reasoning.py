"""Which characters a template marks as thought: by the marks that it names itself."""

import re
from collections.abc import Iterator

from .marks import Marked, Origin

Pairs = set[tuple[str, tuple[str, ...]]]
"""What begins a thought, and what ends it."""

CHANNEL = "<|channel|>analysis<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_NAMED = re.compile(
    r"([<\[◁]\|?)/?((?:START_|END_)?(?:\w+:)?(?:think|thinking|thought|reason|reasoning))(\|?[>\]▷])", re.IGNORECASE
)


def thought(text: Marked, template: str) -> list[bool]:
    """Of every character, whether the assistant thought it: behind a mark of thought that the template names, before its end.

    The mark is the template's own, or what the assistant said begins with it; in another's word it is none.
    """
    found = [False] * len(text)
    pairs = marks_of(template)
    for begin, end in _turns(text):
        for opens, closes in pairs:
            for first, last in _between(text[begin:end], opens, closes):
                for place in range(begin + first, begin + last):
                    found[place] = text.marks[place] is not None
    return found


def goes_on(text: Marked, template: str) -> bool:
    """Whether what comes behind a text is thought: the assistant's part at its end begins a thought and does not end it."""
    others = [place for place, mark in enumerate(text.marks) if mark is not None and mark.role != "assistant"]
    end = text[others[-1] + 1 if others else 0 :]
    return any(last == len(end) for opens, closes in marks_of(template) for _, last in _between(end, opens, closes))


def marks_of(template: str) -> Pairs:
    """What begins and what ends a thought, of what the template says."""
    pairs: Pairs = {(CHANNEL, _ENDS)} if "<|channel|>" in template and "analysis" in template else set()
    for open_, name, close in _NAMED.findall(template):
        if name.upper().startswith(("START_", "END_")):
            bare = name.split("_", 1)[1]
            pairs.add((f"{open_}START_{bare}{close}", (f"{open_}END_{bare}{close}",)))
        else:
            pairs.add((f"{open_}{name}{close}", (f"{open_}/{name}{close}",)))
    return pairs


def _turns(text: Marked) -> Iterator[tuple[int, int]]:
    """What an assistant said in one turn, and the markup on both sides."""
    runs: list[tuple[Origin, int, int]] = []  # whose, from, to
    for place, mark in enumerate(text.marks):
        if mark is not None:
            same = runs and (runs[-1][0].role, runs[-1][0].turn) == (mark.role, mark.turn)
            runs.append((mark, runs.pop()[1] if same else place, place + 1))
    for number, (mark, _, _) in enumerate(runs):
        if mark.role == "assistant":
            before = runs[number - 1][2] if number else 0
            yield before, runs[number + 1][1] if number + 1 < len(runs) else len(text)


def _between(text: Marked, opens: str, closes: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    place = text.find(opens)
    while place >= 0:
        begin = place + len(opens)
        if not any(text.marks[place:begin]):
            yield begin, _closed(text, begin, closes)
        elif not any(mark and not c.isspace() for c, mark in zip(str.__str__(text), text.marks[:place])):
            own = next((at for at in range(begin, len(text)) if text.marks[at] is None), len(text))
            yield begin, min(_found(text[:own], begin, closes), default=own)
        place = text.find(opens, begin)


def _closed(text: Marked, begin: int, closes: tuple[str, ...]) -> int:
    """Where the template ends what it began; else where the assistant does."""
    every = sorted(_found(text, begin, closes))
    return next((at for at in every if text.marks[at] is None), every[0] if every else len(text))


def _found(text: Marked, begin: int, some: tuple[str, ...]) -> list[int]:
    return [at for one in some for at in range(begin, len(text)) if text.startswith(one, at)]
