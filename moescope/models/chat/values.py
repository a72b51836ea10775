"""Messages as templates get them, every part marked with whose it is; and the JSON of such parts."""

import json
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from .marks import Lost, Mark, Marked, Origin, joined, said


class _Owned:
    """A value that is no text, of somebody; printed it is."""

    origin: Origin

    def __str__(self) -> str:
        return said(self._shown(), self.origin)

    def _shown(self) -> str:
        return repr(self)


class Number(_Owned, int):
    """A whole number."""

    def _shown(self) -> str:
        return int.__repr__(self)


class Decimal(_Owned, float):
    """A number with a fraction."""

    def _shown(self) -> str:
        return float.__repr__(self)


class Truth(_Owned, int):
    """True or False, of which Python lets nobody make a kind."""

    def _shown(self) -> str:
        return repr(bool(self))


class Nothing(_Owned):
    """None, inside a message's parts."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Nothing)

    def __hash__(self) -> int:
        return hash(None)

    def _shown(self) -> str:
        return "None"


class Fields(_Owned, dict[Any, Any]):
    """A dict."""

    def _shown(self) -> str:
        return dict.__repr__(self)


class Items(_Owned, list[Any]):
    """A list."""

    def _shown(self) -> str:
        return list.__repr__(self)


class Parts(Items):
    """What a message holds, where it is a list: printed as Python writes lists it would be no message."""

    def _shown(self) -> str:
        raise Lost("prints a list of parts as Python writes it")


_KINDS: dict[type, type[Any]] = {bool: Truth, int: Number, float: Decimal, dict: Fields, list: Items}


def owned(value: Any, origin: Origin) -> Any:
    """A value of JSON and all in it, marked. What is no JSON is named by its type, as Transformers does it."""
    if isinstance(value, str):
        return said(str.__str__(value), origin)
    if isinstance(value, Mapping):
        value = {owned(str(key), origin): owned(inner, origin) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        value = [owned(inner, origin) for inner in value]
    elif value is not None and type(value) not in _KINDS:
        return said(f"<{type(value).__name__}>", origin)
    made = Nothing() if value is None else _KINDS[type(value)](value)
    made.origin = origin
    return made


def carries(value: Any, depth: int = 4) -> bool:
    """Whether anything of a message is in it."""
    if isinstance(value, Marked):
        return any(value.marks)
    if isinstance(value, _Owned):
        return True
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return depth > 0 and any(carries(one, depth - 1) for one in inner)


def one_origin(value: Any) -> Mark:
    """Whose a value is, if it is one's alone."""
    if isinstance(value, Marked):
        return value.marks[0] if len(set(value.marks)) == 1 else None
    return getattr(value, "origin", None)


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> Marked:
    """As `json.dumps`: brackets, commas and numbers are of whom the list or dict is that they stand in."""
    comma, colon = separators or ((", " if indent is None else ","), ": ")
    step = " " * indent if isinstance(indent, int) else indent
    escape = encode_basestring_ascii if ensure_ascii else encode_basestring

    def parts(value: Any, within: Mark, level: int) -> Iterator[str]:
        if isinstance(value, str):
            yield from _string(value, within, escape)
        elif isinstance(value, list | tuple | Mapping):
            own = getattr(value, "origin", within)
            pairs = [*value.items()] if isinstance(value, Mapping) else [(None, inner) for inner in value]
            pairs = sorted(pairs) if sort_keys and isinstance(value, Mapping) else pairs
            begin, end = "{}" if isinstance(value, Mapping) else "[]"
            yield said(begin, own)
            for number, (key, inner) in enumerate(pairs):
                yield said((comma if number else "") + ("" if step is None else "\n" + step * (level + 1)), own)
                if isinstance(value, Mapping):
                    yield from _string(key if isinstance(key, str) else json.dumps(key), own, escape)
                    yield said(colon, own)
                yield from parts(inner, own, level + 1)
            yield said(("\n" + step * level if step is not None and pairs else "") + end, own)
        else:
            plain = None if isinstance(value, Nothing) else bool(value) if isinstance(value, Truth) else value
            yield said(json.dumps(plain), getattr(value, "origin", within))

    return joined(parts(value, None, 0))


def _string(text: str, within: Mark, escape: Callable[[str], str]) -> Iterator[str]:
    yield said('"', within)
    for character in text:
        yield said(escape(str.__str__(character))[1:-1], one_origin(character) if isinstance(text, Marked) else within)
    yield said('"', within)
