"""Which path is meant by what somebody passed as data."""

import re
from difflib import get_close_matches
from pathlib import Path

from ...errors import InputError
from . import formats
from .shipped import shipped


def locate(data: str | Path) -> Path:
    """The path that is meant, a hub name as a path; raises InputError naming what is near."""
    said = str(data)
    if ("\n" in said or len(said.split()) > 3) and not _there(data):
        short = said if len(said) <= 60 else said[:57] + "..."
        raise InputError(f"There is no file, folder or data set {short!r}: if it is a text, put it into a list, [text].")
    path = Path(data).expanduser()
    if said and path.exists():
        return path
    if str(data) in shipped():
        return shipped()[str(data)]
    if str(data)[:1] not in ("", ".", "/", "~") and formats.find(path) is not None:
        return path
    near = _near(path)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    sets = ", ".join(shipped()) or "none in this installation"
    text = "; if it is a text, put it into a list, [text]" if len(said.split()) > 1 else ""
    raise InputError(
        f"There is no file, folder or shipped set {said!r}: {hint}shipped sets: {sets}; hub sets are owner/name{text}."
    )


def _there(data: str | Path) -> bool:
    try:
        return Path(data).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no name that a file could have
        return False


def _near(path: Path) -> list[str]:
    siblings = [p.name for p in path.parent.iterdir() if p.exists()] if path.parent.is_dir() else []
    beside = [str(path.with_name(name)) for name in get_close_matches(path.name, siblings, n=2)]
    return [re.sub(r"^\./", "", name) for name in beside] + get_close_matches(str(path), shipped(), n=1)
