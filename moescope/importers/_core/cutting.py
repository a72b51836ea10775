"""Long payloads are cut out of a line before it is read as JSON: the rest is small, and they are read faster by themselves.

Only where the key is followed by what a payload is made of, base64 or nested lists of whole numbers; anything else stays, and
is read as ever. A key inside a text is no such place: there its last quotation mark has a backslash before it.
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


_DIGIT, _MINUS, _COMMA, _OPEN, _CLOSE, _BLANK, _OTHER = range(7)
_KINDS = np.full(256, _OTHER, np.uint8)
for _kind, _letters in enumerate((b"0123456789", b"-", b",", b"[", b"]", b" \t")):
    _KINDS[np.frombuffer(_letters, np.uint8)] = _kind
_FOLLOWS = np.zeros((7, 7), np.bool_)  # what may stand behind what; anything else is left to the reader of JSON
for _before, _behind in (
    (_DIGIT, (_DIGIT, _COMMA, _CLOSE)), (_MINUS, (_DIGIT,)), (_COMMA, (_DIGIT, _MINUS, _OPEN, _BLANK)),
    (_OPEN, (_DIGIT, _MINUS, _OPEN)), (_CLOSE, (_COMMA, _CLOSE)), (_BLANK, (_DIGIT, _MINUS, _OPEN, _BLANK)),
):  # fmt: skip
    _FOLLOWS[_before, list(_behind)] = True
_TOO_LARGE = -(2**31)


def _numbers(raw: bytes, at: int) -> tuple[Any, int]:
    """(a, b, c) whole numbers of the lists of three levels from `at` on, and where they end; None for lists of another form."""
    shape, have = np.zeros(4, np.int64), np.zeros(4, np.int64)
    text = np.frombuffer(raw, np.uint8, offset=at)
    numbers = np.empty(len(text) // 2 + 1, np.int32)
    end = _read(text, _KINDS, _FOLLOWS, numbers, shape, have)
    count = int(shape[1] * shape[2] * shape[3])
    if not end or bool((numbers[:count] == _TOO_LARGE).any()):
        return None, at
    return numbers[:count].reshape(tuple(shape[1:])), at + end


@compiled
def _read(text: Any, kinds: Any, follows: Any, numbers: Any, shape: Any, have: Any) -> int:
    """Write the numbers of the nested lists at the beginning of text to numbers, and the lengths of their levels to shape[1:];
    gives where they end, or 0 for lists that are not of one shape, not of three levels, or have blanks elsewhere than behind
    commas. Larger numbers than fit become -2^31."""
    level, count, value, sign, before = 0, 0, 0, 1, 2
    for i in range(text.size):
        kind = kinds[text[i]]
        if not follows[before, kind]:
            return 0
        if before == 0 and kind != 0:
            numbers[count] = sign * value
            count, value = count + 1, 0
            have[3] += 1
        before = kind
        if kind == 0:
            if level != 3:
                return 0
            value = min(value * 10 + text[i] - 48, 2147483648)
        else:
            sign = 1 - 2 * (kind == 1)
            level += kind == 3
            if kind == 4:
                shape[level] += (shape[level] == 0) * have[level]
                if have[level] != shape[level]:
                    return 0
                have[level] = 0
                level -= 1
                have[level] += 1
                if level == 0:
                    return i + 1
    return 0


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
