"""Texts that know who said each of their characters, whatever a template does with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex


@dataclass(frozen=True)
class Origin:
    """Where characters come from: whose message, its number, and whether it is what was thought before what is said."""

    role: str
    turn: int | None = None
    reasoning: bool = False


class Lost(Exception):
    """A template did something with a message after which nobody can say whose text it is."""


Mark = Origin | None
"""None: of the template itself."""


class Marked(str):
    """A text with `marks`, one for each character. What a str does keeps them, or raises Lost."""

    marks: tuple[Mark, ...]

    def __new__(cls, text: str, marks: Iterable[Mark]) -> "Marked":
        """The text, with as many marks as it has characters."""
        made = super().__new__(cls, text)
        made.marks = tuple(marks)
        return made

    def __str__(self) -> "Marked":
        """Itself: Python takes it for the text that it is."""
        return self

    def __getitem__(self, at: SupportsIndex | slice) -> "Marked":
        marks = self.marks[at]
        return Marked(super().__getitem__(at), marks if isinstance(at, slice) else (marks,))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator["Marked"]:  # type: ignore[override]
        return (self[place] for place in range(len(self)))

    def __add__(self, other: str) -> "Marked":
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "Marked":
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> "Marked":
        return joined([self] * int(times))

    __rmul__ = __mul__

    def lstrip(self, chars: str | None = None) -> "Marked":
        """Without white space at its beginning."""
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> "Marked":
        """Without white space at its end."""
        return self[: len(super().rstrip(chars))]

    def strip(self, chars: str | None = None) -> "Marked":
        """Without white space at both ends."""
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> "Marked":
        """Without this beginning."""
        return self[len(prefix) if self.startswith(prefix) else 0 :]

    def removesuffix(self, suffix: str) -> "Marked":
        """Without this end."""
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[Marked]":  # type: ignore[override]
        """What stands between separators."""
        return self._pieces(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[Marked]":  # type: ignore[override]
        """The same, from the end."""
        return self._pieces(super().rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> "list[Marked]":  # type: ignore[override]
        """Its lines."""
        whole = self._pieces(super().splitlines(True), "")
        return whole if keepends else [w[: len(bare)] for w, bare in zip(whole, super().splitlines())]

    def _pieces(self, pieces: list[str], sep: str | None) -> "list[Marked]":
        """Pieces that stand in this order, between separators (None: white space)."""
        found, place = [], 0
        for piece in pieces:
            place = self.find(piece, place) if sep is None else place
            found.append(self[place : place + len(piece)])
            place += len(piece) + len(sep or "")
        return found

    def partition(self, sep: str) -> "tuple[Marked, Marked, Marked]":  # type: ignore[override]
        """What stands before, at and behind the first separator."""
        return self._parted(self.find(sep), len(sep), len(self))

    def rpartition(self, sep: str) -> "tuple[Marked, Marked, Marked]":  # type: ignore[override]
        """The same of the last one."""
        return self._parted(self.rfind(sep), len(sep), 0)

    def _parted(self, place: int, size: int, without: int) -> "tuple[Marked, Marked, Marked]":
        begin, end = (place, place + size) if place >= 0 else (without, without)
        return self[:begin], self[begin:end], self[end:]

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "Marked":
        """What is put in a text's place, as an escape is, is of whom the text was."""
        if not old:
            raise Lost("puts something between all characters of it")
        pieces = self.split(old, count)
        found: list[str] = [*pieces[:1]]
        place = len(pieces[0])
        for piece in pieces[1:]:
            found += [new if any(getattr(new, "marks", ())) else Marked(new, [self.marks[place]] * len(new)), piece]
            place += len(old) + len(piece)
        return joined(found)

    def join(self, pieces: Iterable[str]) -> "Marked":
        """This text between pieces."""
        found: list[str] = []
        for piece in pieces:
            found += [self, piece] if found else [piece]
        return joined(found)


def _turned(name: str) -> Any:
    """A method that turns characters into others."""
    way = getattr(str, name)

    def method(self: Marked, *args: Any) -> Marked:
        made = way(self, *args)
        if len(made) == len(self):
            return Marked(made, self.marks)
        each = [Marked(text, [mark] * len(text)) for c, mark in zip(str.__iter__(self), self.marks) for text in (way(c),)]
        if (found := joined(each)) != made:
            raise Lost(f"turns it by `{name}`")
        return found

    return method


def _refused(name: str) -> Any:
    def method(self: Marked, *_: Any, **__: Any) -> Any:
        raise Lost(f"puts it into another text, or another text into it, by `{name}`")

    return method


for _name in ("lower", "upper", "title", "capitalize", "swapcase", "casefold"):
    setattr(Marked, _name, _turned(_name))
for _name in (
    "format",
    "format_map",
    "translate",
    "encode",
    "zfill",
    "ljust",
    "rjust",
    "center",
    "expandtabs",
    "__mod__",
    "__rmod__",
):
    setattr(Marked, _name, _refused(_name))


def joined(pieces: Iterable[str]) -> Marked:
    """Pieces as one text; those without marks are the template's."""
    listed = list(pieces)
    marks: list[Mark] = []
    for piece in listed:
        marks += piece.marks if isinstance(piece, Marked) else [None] * len(piece)
    return Marked("".join(listed), marks)


def said(text: str, origin: Mark) -> Marked:
    """A whole text of one origin."""
    return Marked(text, [origin] * len(text))
