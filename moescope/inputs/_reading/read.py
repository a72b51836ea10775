"""From what the user passed to a Dataset, or to a Stream of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import doing, one_line
from .. import folder, images
from . import files, formats, memory
from .bounds import not_the_system
from .digest import digest
from .locate import locate
from .options import Options
from .raw import patterns
from .report import Report
from .types import Dataset, Example, Kind, Lazy, Stream


def read(
    data: Any,
    *,
    text_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    sentences: bool = False,
    chat: bool = False,
    prompt: str | None = None,
    media: bool = True,
    skip_bad: bool = False,
    pad_id: int | None = None,
    enough: Callable[[Example], bool] | None = None,
) -> Dataset:
    """Read a file, a folder, a pattern of files, the name of a shipped set, or a hub data set ('owner/name' or
    'owner/name:config'); or what lies in memory: a list or generator of texts, of dicts or of token ids, a dict of columns, a
    table, a data set (memory.py).

    limit takes the first examples of a file; of a folder it takes them in turn from each subfolder (or file).
    sentences makes each sentence of an annotated corpus an example, instead of each document. chat takes conversations (column
    `messages` or `conversations`, else text_column), which are taken too where there is no text. skip_bad leaves out rows that
    cannot be used, and files from where they are broken on, and counts them. prompt: the text of rows and files that are
    pictures, sound or video alone. media: whether columns image, video and audio are media beside the text, or left alone.
    pad_id: the model's padding, which arrays of ids may hide. enough: asked after each example of what lies in memory, whether
    no more are needed.
    Raises InputError for whatever cannot be used as asked; a file that exists goes before a shipped set of its name.
    """
    if isinstance(data, Dataset):
        return data if limit is None else replace(data, examples=data.examples[:limit])
    columns = None if label_columns is None else tuple(label_columns)
    report = Report(skip_bad=skip_bad)
    options = Options(
        text_column, columns, split, limit, sentences, chat, prompt, media, pad_id=pad_id, enough=enough, report=report
    )
    with _reading(data):
        opened = _opened(data, options)
        examples = _take(opened.examples, limit, enough if opened.in_memory else None)
        if not examples:
            raise _nothing(opened, options)
        kinds = {examples[0].kind} if isinstance(examples, Lazy) else {example.kind for example in examples}
        if len(kinds) > 1:
            raise _mixed(opened.name)
        sha256 = report.sha256 or opened.digest(examples)
        return Dataset(opened.named(examples[0]), sha256, kinds.pop(), examples, report.warnings(), report)


def stream(
    data: Any,
    *,
    text_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    sentences: bool = False,
    chat: bool = False,
    prompt: str | None = None,
    media: bool = True,
    skip_bad: bool = False,
    pad_id: int | None = None,
) -> Stream:
    """The same, to be gone through once: no more is drawn of `data` than is asked for, and nothing is held.

    Raises InputError at once for what is wrong up to the first example, and for the rest when it is reached.
    """
    columns = None if label_columns is None else tuple(label_columns)
    report = Report(skip_bad=skip_bad)
    options = Options(
        text_column, columns, split, limit, sentences, chat, prompt, media, stream=True, pad_id=pad_id, report=report
    )
    with _reading(data):
        opened = _opened(data, options)
        found = _drawn(data, opened.examples, report, limit)
        first = next(found, None)
        if first is None:
            raise _nothing(opened, options)
        name = opened.named(first)
        return Stream(name, first.kind, _of_one_kind(chain([first], found), first.kind, name, report), report)


@dataclass(frozen=True)
class _Opened:
    """What was found, before its first example is drawn."""

    name: str
    examples: Iterable[Example]
    digest: Callable[[Sequence[Example]], str]
    in_memory: bool = False

    def named(self, first: Example) -> str:
        """What to call it, once its first example is there."""
        return first.source if self.in_memory and self.name in ("inputs", "ids") else self.name


def _opened(data: Any, options: Options) -> _Opened:
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit} leaves nothing to trace: give 1 or more.")
    if not isinstance(data, str | Path):
        if options.sentences:
            raise InputError("sentences are told apart in CoNLL-U files only: leave it out.")
        return _Opened(memory.name(data), memory.read_examples(data, replace(options, memory=True)), digest, True)
    if patterns.is_pattern(data):
        root, found = patterns.matching(data)
        kind = images if all(files.suffix(path) in images.SUFFIXES for path in found) else folder
        return _Opened(files.shown(str(data)), kind.read_files(root, found, options), lambda _: files.sha256_of(root, found))
    path = locate(data)
    not_the_system(path)
    return _Opened(files.shown(_name(data, path)), formats.read_examples(path, options), lambda _: files.sha256(path))


@contextmanager
def _reading(data: Any) -> Iterator[None]:
    """Whatever a library raises for files leaves as one sentence; what lies in memory speaks for itself."""
    if not isinstance(data, str | Path):
        yield
        return
    with doing(f"reading {data}", InputError):
        try:
            yield
        except OSError as error:
            raise InputError(f"{error.filename or data} cannot be read: {error.strerror or one_line(str(error))}.") from error


def _drawn(data: Any, examples: Iterable[Example], report: Report, limit: int | None) -> Iterator[Example]:
    """One after the other."""
    found = _each(examples, report) if isinstance(examples, Lazy) else iter(examples)
    for _ in repeat(None) if limit is None else repeat(None, limit):
        with _reading(data):
            example = next(found, None)
        if example is None:
            return
        yield example


def _each(examples: Lazy[Any], report: Report) -> Iterator[Example]:
    """Those that can be made."""
    for number in range(len(examples)):
        try:
            yield examples[number]
        except InputError as error:
            report.bad("the files", error)


def _of_one_kind(examples: Iterator[Example], kind: Kind, name: str, report: Report) -> Iterator[Example]:
    for example in examples:
        if example.kind == kind:
            yield example
        else:
            report.bad(example.source, _mixed(name))


def _nothing(opened: _Opened, options: Options) -> InputError:
    warnings = options.report.warnings()
    if opened.in_memory and opened.name == "inputs" and not warnings:
        return InputError(f"inputs are neither a path nor rows, but empty: give {memory.FORMS}")
    why = "; ".join(w[0].lower() + w[1:-1] for w in warnings) or "it is empty"
    return InputError(f"{opened.name} holds nothing to trace: {why}.")


def _mixed(name: str) -> InputError:
    return InputError(f"{name} holds both texts and images: pass a folder of one kind.")


def _name(data: str | Path, path: Path) -> str:
    return Path(data).resolve().name if path.exists() and Path(data).expanduser().exists() else str(data)


def _take(examples: Iterable[Example], limit: int | None, enough: Callable[[Example], bool] | None = None) -> Sequence[Example]:
    """The first ones; no more are drawn than are taken."""
    if isinstance(examples, Lazy):
        return examples[:limit]
    taken = []
    for example in islice(examples, limit):
        taken.append(example)
        if enough is not None and enough(example):
            break
    return tuple(taken)
