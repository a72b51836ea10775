"""Files by a pattern: `shards/*.parquet`, `data/**/*.jsonl`, `train-{000..099}.tar`."""

import glob
import os
import re
from pathlib import Path

from ....errors import InputError

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


def is_pattern(data: str | Path) -> bool:
    """Whether this is a pattern, and no path that exists."""
    said = os.path.expanduser(str(data))
    return ("\n" not in said and (glob.has_magic(said) or _BRACES.search(said) is not None)) and not os.path.lexists(said)


def matching(data: str | Path) -> tuple[Path, list[Path]]:
    """The folder in which all files of a pattern lie, and the files in order. InputError where there are none."""
    patterns = _expanded(os.path.expanduser(str(data)))
    found = {Path(name) for pattern in patterns for name in glob.glob(pattern, recursive=True)}
    files = sorted((path for path in found if path.is_file()), key=lambda path: path.as_posix())
    if not files:
        raise InputError(f"There is no file {str(data)!r}: as a pattern it matches none; check it with ls.")
    return Path(os.path.commonpath([path.parent for path in files])), files


def _expanded(pattern: str) -> list[str]:
    """A pattern without its braces: {a,b} and {000..012} are alternatives."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if numbers := _NUMBERS.fullmatch(match[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < _MOST:
            raise InputError(f"{{{match[1]}}} is no range of shards: write the smaller number first, {{000..099}}.")
        alternatives = [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    else:
        alternatives = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [one for alternative in alternatives for one in _expanded(before + alternative + after)]
