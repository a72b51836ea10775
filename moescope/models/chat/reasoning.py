"""Which characters a template marks as thought: by the marks that it names itself."""

import re
from collections.abc import Iterator

from .marks import Marked, Origin

CHANNEL = "<|channel|>analysis<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_NAMED = re.compile(
    r"([<\[◁]\|?)/?((?:START_|END_)?(?:\w+:)?(?:think|thinking|thought|reason|reasoning))(\|?[>\]▷])", re.IGNORECASE
)


def thought(text: Marked, template: str) -> list[bool]:
    """Of every character, whether the assistant thought it: behind a mark of thought that the template names, and before the one
    that ends it. The mark is the template's own, or what the assistant said begins with it; in another's word it is none."""
    found = [False] * len(text)
    pairs = _pairs(template)
    for begin, end in _turns(text):
        for opens, closes in pairs:
            for first, last in _between(text[begin:end], opens, closes):
                for place in range(begin + first, begin + last):
                    found[place] = text.marks[place] is not None
    return found


def _pairs(template: str) -> set[tuple[str, tuple[str, ...]]]:
    """What begins and what ends a thought, of what the template says."""
    pairs = {(CHANNEL, _ENDS)} if "<|channel|>" in template and "analysis" in template else set()
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
        end = min((at for one in closes if (at := text.find(one, begin)) >= 0), default=len(text))
        spoken = any(mark and not c.isspace() for c, mark in zip(str.__str__(text[:place]), text.marks))
        if not any(text.marks[place:begin]) or not spoken:
            yield begin, end
        place = text.find(opens, end)
