"""Where in a text is each token, for tokenizers that do not say it?"""

from collections.abc import Callable, Sequence

_LONGEST = 12  # tokens that spell something only together
_MARKS = ("▁", "Ġ", "</w>", "@@", "##")


def spell(
    text: str, pieces: Sequence[str], special: Sequence[bool], decode: Callable[[slice], str]
) -> list[tuple[int, int]] | None:
    """(start, end) in characters of each token, as fast tokenizers give them: (0, 0) for special ones, empty for white space.

    Tokens are read off the text one after the other; those that spell something only together (the bytes of a character) share
    their place. `pieces` are the tokens as the vocabulary writes them, `decode` gives the text of some of them. None where they
    do not spell the whole text, white space and case aside: then nobody knows where they are.
    """
    found: list[tuple[int, int]] = []
    end = 0
    for number, piece in enumerate(pieces):
        begun = slice(len(found), number + 1)
        decoded, start = decode(begun), _skip(text, end)
        length = 0 if special[number] else _matched(text, start, decoded, "".join(map(bare, pieces[begun])))
        if length:
            end = start + length
            found += [(start, end)] * (number + 1 - len(found))
        elif special[number] or not bare(piece).strip() or decoded.isspace():
            if len(found) < number:
                return None
            found.append((0, 0) if special[number] else (end, end))
        elif number - len(found) >= _LONGEST:
            return None
    return found if len(found) == len(pieces) and not text[end:].strip() else None


def bare(piece: str) -> str:
    """A token without its marks of white space, of parts and of ends of words."""
    for mark in _MARKS:
        piece = piece.removeprefix(mark).removesuffix(mark)
    return piece


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _matched(text: str, start: int, decoded: str, joined: str) -> int:
    """How many characters at `start` are spelled by what tokens decode to, or by the tokens themselves."""
    for one in (decoded.strip(), joined) if decoded and "\ufffd" not in decoded else ():
        there = text[start : start + len(one)]
        if one and (there == one or (len(there) == len(one) and there.lower() == one.lower())):
            return len(one)
    return 0
