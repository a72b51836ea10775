"""Values of a JSON file one by one, however long it is: those of its array, or those that stand one after the other."""

import json
from collections.abc import Iterator
from typing import Any

from ....errors import InputError

_SPACE = " \t\r\n"


class _Pending:
    """What was drawn of a text and not used yet."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self.text, self.place = pieces, "", 0

    def draw(self, least: int = 1) -> bool:
        """Have at least so many characters more; whether there are any more."""
        before = len(self.text) - self.place
        found = [self.text[self.place :]]
        while least > 0 and (piece := next(self._pieces, None)) is not None:
            found.append(piece)
            least -= len(piece)
        self.text, self.place = "".join(found), 0
        return len(self.text) > before

    def peek(self) -> str:
        """The next character that is no white space, '' at the end."""
        while True:
            while self.place < len(self.text):
                if self.text[self.place] not in _SPACE:
                    return self.text[self.place]
                self.place += 1
            if not self.draw():
                return ""


def values(pieces: Iterator[str], source: str) -> Iterator[Any]:
    """Values in order. InputError, with the row, for what is not JSON; also for an array that does not end."""
    pending, row = _Pending(pieces), 0
    array = pending.peek() == "["
    pending.place += array
    ends = array and pending.peek() == "]"
    pending.place += ends
    while pending.peek():
        if ends:
            raise InputError(f"{source} holds more behind its array of {row} rows: repair it, or write an array of all.")
        yield _value(pending, source, row)
        row += 1
        if not array:
            continue
        mark = pending.peek()
        if mark not in (",", "]"):
            raise InputError(
                f"{source}, row {row - 1} is not followed by ',' or ']': the file is cut off or broken; repair it."
            )
        pending.place += 1
        ends = mark == "]"
    if array and not ends:
        raise InputError(f"{source} ends within its array, behind row {row - 1}: the file is cut off; repair it.")


def _value(pending: _Pending, source: str, row: int) -> Any:
    """The next value; as long as it is not whole, twice as much is drawn."""
    while True:
        try:
            value, end = json.JSONDecoder().raw_decode(pending.text, pending.place)
            if end < len(pending.text) or not pending.draw():  # else a number may go on
                pending.place = min(end, len(pending.text))
                return value
        except (ValueError, RecursionError) as error:
            if not isinstance(error, json.JSONDecodeError) or not pending.draw(max(1, len(pending.text) - pending.place)):
                what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise InputError(f"{source}, row {row} is not JSON ({what}): write an array of objects.") from None
