"""A folder of files that moescope reads: the label `domain` is the subfolder, or else the name of the file.

(Plain text files beside each other get no domain: there a file is a document.) What a file says itself goes first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import TypeVar

from ..errors import InputError
from ._reading import formats
from ._reading.files import list_files, shown, stem
from ._reading.options import Options
from ._reading.types import Example

SUFFIXES: frozenset[str] = frozenset()
TAKES = frozenset({"text_column", "label_columns", "split", "sentences", "chat", "prompt"})  # handed on to the files
RANK = 1
_NUMBERS = re.compile(r"[-_.]*\d+([-_.]*of[-_.]*\d+)?")
T = TypeVar("T")


def accepts(path: Path) -> bool:
    """Any folder."""
    return path.is_dir()


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """Subfolder by subfolder, or in turn where there is a limit."""
    root, inner = enter_split(path, options)
    yield from read_files(root, list_files(root), inner)


def read_files(root: Path, files: Sequence[Path], options: Options) -> Iterator[Example]:
    """The same of files below a folder."""
    groups, domains = by_subfolder(root, files), _domains(root, files)
    streams = [chain.from_iterable(_read_file(root, p, options, domains[p]) for p in group) for group in groups]
    yield from in_turn(streams) if options.limit else chain.from_iterable(streams)


def _domains(root: Path, files: Sequence[Path]) -> dict[Path, str]:
    """What the name of each file says of it: that of a file alone nothing, nor those of shards, which differ in numbers."""
    names = {path: _NUMBERS.sub("", stem(path)) for path in files}
    shards = {key for key, n in Counter((p.parent, name) for p, name in names.items()).items() if n > 1}
    if len(files) == 1 or (len(shards) == 1 and len(set(names.values())) == 1):
        return dict.fromkeys(files, "")
    return {path: name if (path.parent, name) in shards else stem(path) for path, name in names.items()}


def enter_split(path: Path, options: Options) -> tuple[Path, Options]:
    """The subfolder that --split names; raises InputError where there is none."""
    if options.split is None:
        return path, options
    if not (path / options.split).is_dir():
        there = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())) or "none"
        raise InputError(f"{options.name(path)} has no subfolder for --split {options.split} (subfolders: {there}).")
    return path / options.split, replace(options, split=None)


def by_subfolder(root: Path, files: Sequence[Path]) -> list[list[Path]]:
    """Files of each first subfolder together; those at the top each alone."""
    return [list(group) for _, group in groupby(files, key=lambda path: path.relative_to(root).parts[0])]


def in_turn(streams: Iterable[Iterable[T]]) -> Iterator[T]:
    """The first of each, the second of each, ...: so that a limit cuts all alike."""
    waiting = [iter(stream) for stream in streams]
    while waiting:
        for stream in list(waiting):
            try:
                yield next(stream)
            except StopIteration:
                waiting.remove(stream)


def _read_file(root: Path, path: Path, options: Options, name: str) -> Iterator[Example]:
    source = shown(path.relative_to(root).as_posix())
    options.report.skip(source, "empty files", int(path.stat().st_size == 0))
    folder = source.rpartition("/")[0].partition("/")[0]
    for example in formats.read_examples(path, replace(options, source=source)):
        domain = folder or ("" if example.document == source else name)
        yield replace(example, labels={"domain": domain, **example.labels}) if domain else example
