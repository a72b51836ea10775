"""Long payloads are cut out of a line before it is read as JSON: the rest is small, and they are read faster by themselves.

Only where the key is followed by what a payload is made of, base64 or nested lists of whole numbers; anything else stays, and is
read as ever. A key inside a text is no such place: there its last quotation mark has a backslash before it.
"""

import binascii
import json
import re
import secrets
from typing import Any

import numpy as np

from ...store.physical.compiled import compiled

_NAME = b'routed_experts"'
_OPENS = re.compile(rb'routed_experts"\s*:\s*(?=["\[])')
_LEAST = 4096  # bytes of a line from which on this is worth it
_MARK = f"\ufdd0{secrets.token_hex(8)}:"  # which no text has


def read_line(raw: bytes) -> Any:
    """The JSON value of a line; payloads in it as bytes (base64) and arrays (lists of three levels). ValueError for no JSON."""
    if len(raw) < _LEAST:
        return json.loads(raw)
    found: list[Any] = []
    pieces, done, look = [], 0, 0
    while (at := raw.find(_NAME, look)) >= 0:
        opens = _OPENS.match(raw, at)
        look = at + len(_NAME)
        if opens is None or not raw[max(0, at - 8) : at].endswith((b'"', b'"prompt_')):
            continue
        at = opens.end()
        value, end = _text(raw, at) if raw[at : at + 1] == b'"' else _numbers(raw, at)
        if value is not None:
            pieces += [raw[done:at], json.dumps(f"{_MARK}{len(found)}").encode()]
            found.append(value)
            done = look = end
    return _put_back(json.loads(b"".join([*pieces, raw[done:]])), found) if found else json.loads(raw)


def _text(raw: bytes, at: int) -> tuple[Any, int]:
    """What stands between the quotation marks from `at` on, and where it ends; None where it is more than plain letters."""
    end = raw.find(b'"', at + 1)
    value = raw[at + 1 : end]
    return (None, at) if end < 0 or b"\\" in value or not value.isascii() else (value, end + 1)


def _put_back(value: Any, found: list[Any]) -> Any:
    if isinstance(value, dict):
        return {key: _put_back(inner, found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, found) for inner in value] if value and not isinstance(value[0], int) else value
    return found[int(value[len(_MARK) :])] if isinstance(value, str) and value.startswith(_MARK) else value


def _numbers(raw: bytes, at: int) -> tuple[Any, int]:
    """(a, b, c) whole numbers of the lists of three levels from `at` on, and where they end; None for lists of another form."""
    shape = np.zeros(3, np.int64)
    text = np.frombuffer(raw, np.uint8, offset=at)
    numbers = np.empty(len(text) // 2 + 1, np.int32)
    count = _read(text, numbers, shape)
    if count <= 0 or count % shape[2] or count // shape[2] % shape[1]:
        return None, at
    return numbers[:count].reshape(-1, int(shape[1]), int(shape[2])), at + int(shape[0])


@compiled
def _read(text: Any, numbers: Any, shape: Any) -> int:
    """Write the numbers of the nested lists at the beginning of text to numbers, where they end and the lengths of the two inner
    levels to shape; gives how many there are, or -1 for lists that are not of one shape, or not of three levels."""
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
                if level == 0:
                    shape[0] = i + 1
                    return count
        elif value >= 0 or c > 32:  # a blank behind a number, or what is no number: left to the reader of JSON
            return -1
    return -1


_VALUES = np.full(256, 255, np.uint8)
_VALUES[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)] = np.arange(64)


def base64(text: bytes) -> bytes | None:
    """The bytes of base64; None where it is none."""
    whole = len(text) - (4 if text.endswith(b"=") else 0)
    if len(text) % 4:
        return None
    data = np.empty(whole // 4 * 3, np.uint8)
    if not _decode(np.frombuffer(text, np.uint8)[:whole], _VALUES, data):
        return None
    return data.tobytes() + (binascii.a2b_base64(text[whole:], strict_mode=True) if whole < len(text) else b"")


@compiled
def _decode(text: Any, values: Any, data: Any) -> bool:
    """Write three bytes for each four letters of text (N,) to data; whether all of them are letters of base64."""
    wrong = np.uint8(0)
    for i in range(text.size // 4):
        a, b, c, d = values[text[4 * i]], values[text[4 * i + 1]], values[text[4 * i + 2]], values[text[4 * i + 3]]
        wrong |= a | b | c | d
        data[3 * i] = (a << 2) | (b >> 4)
        data[3 * i + 1] = (b << 4) | (c >> 2)
        data[3 * i + 2] = (c << 6) | d
    return bool(wrong < 128)
