"""What people write for numbers, lists and settings, read strictly: one reader each for command line and library; shares."""

import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .errors import InputError

LAYERS = 10_000  # more than any model has; so many numbers at most are built of a list such as 0-9999
_SETTING = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", type(None): "null"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive: `Annotated[int, Range(1, 99)]`."""

    least: float
    most: float


Count = Annotated[int, Range(1, 100_000_000)]
Some = Annotated[int, Range(0, 100_000_000)]
Portion = Annotated[float, Range(0, 1)]
RunNumber = Annotated[int, Range(0, 2**32 - 1)]  # as wide as the column of the store


def listed(names: Sequence[str]) -> str:
    """The first of several names, and how many more there are."""
    return f"{names[0]} and {len(names) - 1} more" if names[1:] else names[0]


def percent(share: float | None, sign: Literal["", "+"] = "") -> str:
    """0.1234 as 12.3 %, with `sign` "+" as +12.3 %; a dash where there is none."""
    if share is None or share != share:
        return "–"
    number = 100 * share * (1 + 1e-12)  # halves away from 0, as browsers round: 3.13 of 32 experts
    said = f"{number:{sign}.3g}"
    return f"{number:{sign},.0f} %" if "e+" in said else f"{said} %"


def numbers(text: str, most: int = LAYERS, what: str = "layers") -> list[int]:
    """'0,4-6' as [0, 4, 5, 6], sorted, each once. InputError for anything else, and for numbers of `most` and above."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip(), re.ASCII)
        if match is None:
            raise InputError(f"{text[:80]!r} is not a list of {what} such as 0,4-6")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"{part.strip()!r} in {text[:80]!r} runs backwards: write the smaller number first")
        if last >= most:
            raise InputError(f"{text[:80]!r} asks for {what} up to {last}: numbers below {most} can be given")
        found.update(range(first, last + 1))
    return sorted(found)


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE as a pair: null, true, false, numbers, "quoted" text and lists of them as in JSON; anything else is text.

    InputError where there is no '=', where KEY is no name, and for numbers that are not finite.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text[:80]!r} is not KEY=VALUE")
    if not _SETTING.fullmatch(key):
        raise InputError(f"{key[:80]!r} in {text[:80]!r} is no name of a setting: write KEY=VALUE")
    return key, _value(text, value)


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as a dict. InputError for one that is none, and for a key that is given twice."""
    found: dict[str, Any] = {}
    for key, value in map(setting, texts):
        if key in found:
            raise InputError(f"{key} is given twice: give one value")
        found[key] = value
    return found


def _value(text: str, value: str) -> Any:
    def refuse(number: str) -> Any:
        raise InputError(f"{number} in {text[:80]!r} is not a finite number")

    if value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        refuse(value)
    try:
        found = json.loads(value, parse_constant=refuse)
    except (ValueError, RecursionError):
        return value
    if isinstance(found, float) and not math.isfinite(found):
        refuse(value)
    return found


def check(name: str, value: Any, hint: Any) -> None:
    """InputError unless `value` is of the annotated type: 3 is a float, true is no number, nothing is nan or infinite."""
    if not fits(value, hint):
        raise InputError(
            f"{name} must be {_listed(hint)}, not {value if isinstance(value, str) else json.dumps(value, default=str)!s:.80}"
        )


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type, as far as JSON can say it; annotations of other kinds fit everything."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0]) and all(one.least <= value <= one.most for one in inner[1:] if isinstance(one, Range))
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint in _KINDS:
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if hint is dict or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if origin in (list, tuple, Sequence):
        wanted = [one for one in inner if one is not Ellipsis]
        counted = origin is tuple and Ellipsis not in inner
        right = isinstance(value, list | tuple) and (not counted or len(value) == len(wanted))
        return right and all(fits(one, wanted[min(i, len(wanted) - 1)]) for i, one in enumerate(value) if wanted)
    return True


def _listed(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _listed(inner[0]) + "".join(f" from {one.least} to {one.most}" for one in inner[1:] if isinstance(one, Range))
    if origin in (Union, types.UnionType):
        return " or ".join(_listed(one) for one in inner)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    return _KINDS.get(hint, "a list" if origin in (list, tuple, Sequence) else "a mapping")
