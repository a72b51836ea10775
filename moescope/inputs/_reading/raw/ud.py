"""Sentences of CoNLL-U and CONLLULEX files: lines to tokens.

Format: https://universaldependencies.org/format.html; the nine further columns of CONLLULEX:
https://github.com/nert-nlp/streusle/blob/master/CONLLULEX.md
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from ....errors import InputError

UD = ("form", "lemma", "upos", "xpos", "feats", "", "deprel", "", "")
LEX = ("smwe", "lexcat", "lexlemma", "supersense", "supersense2", "wmwe", "wcat", "wlemma", "lextag")
COMMENT = re.compile(r"#\s*([^=]*?)\s*(?:=\s?(.*))?$", re.DOTALL)
ID = re.compile(r"(\d+)(?:-(\d+)|\.(\d+))?")
SPACES = {"s": " ", "t": "\t", "n": "\n", "r": "\r", "p": "|", "\\": "\\"}


@dataclass(frozen=True)
class Token:
    """What is written between two places where a space may be: one word, or several (a multiword token)."""

    line: int
    form: str
    after: str  # white space that follows
    words: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Sentence:
    """Comments by key (one without '=' has the value ''), and tokens in order."""

    line: int
    comments: dict[str, str]
    tokens: list[Token]


def sentences(lines: Iterable[str], source: str) -> Iterator[Sentence]:
    """Sentences in order; raises InputError naming the first malformed line."""
    numbered = enumerate(lines, start=1)
    for filled, group in groupby(numbered, key=lambda pair: bool(pair[1].strip())):
        if filled:
            block = list(group)
            comments = dict(_comment(line) for _, line in block if line.startswith("#"))
            rows = [(number, line.split("\t")) for number, line in block if not line.startswith("#")]
            yield Sentence(block[0][0], comments, _tokens(rows, source))


def _comment(line: str) -> tuple[str, str]:
    match = COMMENT.match(line)
    return (match[1], match[2] or "") if match else (line, "")


def _tokens(rows: list[tuple[int, list[str]]], source: str) -> list[Token]:
    tokens: list[Token] = []
    last_id = last_of_range = 0
    for number, cells in rows:
        start, end, empty = _id(number, cells, source)
        if empty:
            continue
        if start != last_id + 1 or (end and (end <= start or start <= last_of_range)):
            raise malformed(source, number, f"the word number {cells[0]} does not follow {last_id}")
        if end:
            tokens.append(Token(number, cells[1], spaces(cells[9])))
            last_of_range = end
        else:
            _add_word(tokens, number, cells, inside=start <= last_of_range)
            last_id = start
    if last_of_range > last_id:
        raise malformed(source, rows[-1][0], f"the sentence ends at word {last_id}, inside a multiword token")
    return tokens


def _add_word(tokens: list[Token], number: int, cells: list[str], inside: bool) -> None:
    if not inside:
        tokens.append(Token(number, cells[1], spaces(cells[9])))
    tokens[-1].words.append(labels(cells))


def _id(number: int, cells: list[str], source: str) -> tuple[int, int, bool]:
    if len(cells) not in (10, 19):
        raise malformed(source, number, f"it has {len(cells)} tab-separated columns, not 10 (CoNLL-U) or 19 (CONLLULEX)")
    match = ID.fullmatch(cells[0])
    if match is None or not cells[1]:
        raise malformed(source, number, f"{cells[0]!r} is no word number" if match is None else "its form is empty")
    return int(match[1]), int(match[2] or 0), match[3] is not None


def malformed(source: str, line: int, what: str) -> InputError:
    """The error for a line that breaks the format."""
    return InputError(f"{source}, line {line} is not well-formed: {what}; repair it or leave the sentence out.")


def labels(cells: list[str]) -> dict[str, str]:
    """Named columns of a word; '_' means none, except for a word that is an underscore."""
    named = zip(UD + (LEX if len(cells) == 19 else ()), cells[1:])
    return {name: value for name, value in named if name and (value != "_" or (cells[1] == "_" and name in UD[:2]))}


def spaces(misc: str) -> str:
    """White space after a token by its MISC column: SpacesAfter, or none for SpaceAfter=No, or one space."""
    pairs = dict(pair.partition("=")[::2] for pair in misc.split("|"))
    if "SpacesAfter" in pairs:
        found = re.sub(r"\\(?:u([0-9A-Fa-f]{4})|(.))", _unescape, pairs["SpacesAfter"])
        return found.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
    return "" if pairs.get("SpaceAfter") == "No" else " "


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else SPACES.get(match[2], match[0])
