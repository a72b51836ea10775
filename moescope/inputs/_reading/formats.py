"""Formats by their folder: each public module here, and those that other installations offer.

A format has SUFFIXES (file endings that are surely its own), TAKES (options it heeds), `accepts(path) -> bool` and
`read_examples(path, options) -> Iterable[Example]`; an optional RANK over 0 lets more special formats go first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from ... import discover
from ...errors import InputError
from .options import Options, refuse_foreign
from .types import Example, Lazy


def formats() -> list[ModuleType]:
    """All formats, the most special first."""
    return sorted(discover.modules("inputs").values(), key=lambda module: getattr(module, "RANK", 0))


def suffixes() -> set[str]:
    """Every file ending that some format calls its own."""
    return {suffix for module in formats() for suffix in module.SUFFIXES}


def find(path: Path) -> ModuleType | None:
    """The first format that accepts path."""
    return next((module for module in formats() if module.accepts(path)), None)


def read_examples(path: Path, options: Options) -> Iterable[Example]:
    """Examples of a file, folder or hub name; raises InputError where no format accepts it.

    Where bad input is left out, a file ends where it can be read no further.
    """
    module = find(path)
    if module is None:
        known = ", ".join(sorted(suffixes()))
        raise InputError(f"{options.name(path)} has no form that moescope reads: it reads {known}, and folders.")
    refuse_foreign(module, options, path)
    source = options.name(path)
    inside = replace(options, folder=options.folder or (path.parent if path.is_file() else path))
    try:
        found = module.read_examples(path, inside)
    except InputError as error:
        options.report.bad(source, error)
        return ()
    return found if isinstance(found, Lazy) else _readable(found, options, source)


def _readable(found: Iterable[Example], options: Options, source: str) -> Iterator[Example]:
    try:
        yield from found
    except InputError as error:
        options.report.bad(source, error)
