"""Long payloads are cut out of a line before it is read as JSON: the rest is small, and they are read faster by themselves.

Only where the key is followed by what a payload is made of, base64 or nested lists of whole numbers; anything else stays, and is
read as ever. A key inside a text is no such place: there its last quotation mark has a backslash before it.
"""

import json
import re
from typing import Any

import numpy as np

from ...store.physical.compiled import compiled

_KEY = re.compile(rb'"(?:prompt_)?routed_experts"\s*:\s*(?:"([A-Za-z0-9+/=]*)"|(\[[\[\]0-9,\s-]*\]))(?=\s*[,}])')
_LEAST = 4096  # bytes of a line from which on this is worth it
_MARK = "\ufdd0moescope:"  # a character that no text has


def read_line(raw: bytes) -> Any:
    """The JSON value of a line; payloads in it as bytes (base64) and arrays (lists of three levels). ValueError for no JSON."""
    if len(raw) < _LEAST or _MARK.encode() in raw:
        return json.loads(raw)
    found: list[Any] = []

    def cut(match: re.Match[bytes]) -> bytes:
        value = match[1] if match[1] is not None else _numbers(match[2])
        if value is None:
            return match[0]
        found.append(value)
        inside = match.start(1) - 1 if match[1] is not None else match.start(2)
        return match[0][: inside - match.start()] + json.dumps(f"{_MARK}{len(found) - 1}").encode()

    rest = _KEY.sub(cut, raw)
    return _put_back(json.loads(rest), found) if found else json.loads(raw)


def _put_back(value: Any, found: list[Any]) -> Any:
    if isinstance(value, dict):
        return {key: _put_back(inner, found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, found) for inner in value] if value and not isinstance(value[0], int) else value
    return found[int(value[len(_MARK) :])] if isinstance(value, str) and value.startswith(_MARK) else value


def _numbers(text: bytes) -> Any:
    """(a, b, c) whole numbers of lists of three levels; None for lists of another form."""
    shape = np.zeros(3, np.int64)
    numbers = np.empty(len(text) // 2 + 1, np.int32)
    count = _read(np.frombuffer(text, np.uint8), numbers, shape)
    if count < 0 or count == 0 or count % shape[2] or count // shape[2] % shape[1]:
        return None
    return numbers[:count].reshape(-1, int(shape[1]), int(shape[2]))


@compiled
def _read(text: Any, numbers: Any, shape: Any) -> int:
    """Write the numbers of nested lists to numbers, the lengths of the two inner levels to shape[1:]; gives how many there are,
    or -1 for lists that are not of one shape, or not of three levels."""
    level, count, middle, inner, value, sign = 0, 0, 0, 0, -1, 1
    comma = True  # whether a value may come
    for i in range(text.size):
        c = text[i]
        if 48 <= c <= 57:
            if level != 3 or (value < 0 and not comma):
                return -1
            value = (value if value > 0 else 0) * 10 + (c - 48)
            if value > 2147483647:
                return -1
            comma = False
        elif c == 45:
            if level != 3 or not comma or sign < 0:
                return -1
            sign = -1
        elif c == 91:
            level += 1
            if level > 3 or not comma:
                return -1
            if level == 2:
                middle = 0
            elif level == 3:
                inner = 0
        elif c == 44 or c == 93:
            if value >= 0:
                numbers[count] = sign * value
                count += 1
                inner += 1
            if comma or (value < 0 and level == 3 and sign < 0):
                return -1
            value, sign = -1, 1
            if c == 44:
                comma = True
            else:
                if level == 3:
                    if shape[2] == 0:
                        shape[2] = inner
                    if inner != shape[2]:
                        return -1
                    middle += 1
                elif level == 2:
                    if shape[1] == 0:
                        shape[1] = middle
                    if middle != shape[1]:
                        return -1
                level -= 1
        elif value >= 0:  # a blank behind a number: left to the reader of JSON
            return -1
    return count if level == 0 else -1
