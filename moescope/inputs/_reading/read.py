"""From what the user passed to a Dataset."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...foreign import doing, one_line
from . import files, formats, memory
from .bounds import not_the_system
from .options import Options
from .shipped import shipped
from .types import Dataset, Example, Kind, Lazy


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
    pad_id: int | None = None,
    enough: Callable[[Example], bool] | None = None,
) -> Dataset:
    """Read a file, a folder, the name of a shipped set, or a hub data set ('owner/name' or 'owner/name:config'); or what lies
    in memory: a list or generator of texts, of dicts or of token ids, a dict of columns, a table, a data set (_memory.py).

    limit takes the first examples of a file; of a folder it takes them in turn from each subfolder (or file).
    sentences makes each sentence of an annotated corpus an example, instead of each document. chat takes conversations (column
    `messages` or `conversations`, else text_column), which are taken too where there is no text. pad_id: the model's padding,
    which arrays of ids may hide. prompt: the text of rows and files that are pictures,
    sound or video alone. media: whether columns image, video and audio are media beside the text, else they are left alone.
    enough: asked after each example of what lies in memory, whether no more are needed.
    Raises InputError for whatever cannot be used as asked; a file that exists goes before a shipped set of its name.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit} leaves nothing to trace: give 1 or more.")
    columns = None if label_columns is None else tuple(label_columns)
    options = Options(text_column, columns, split, limit, sentences, chat, prompt, media, pad_id=pad_id, enough=enough)
    if isinstance(data, Dataset):
        return data if limit is None else replace(data, examples=data.examples[:limit])
    if not isinstance(data, str | Path):
        return _from_memory(data, replace(options, memory=True))
    with doing(f"reading {data}", InputError):
        try:
            path = locate(data)
            not_the_system(path)
            return _dataset(files.shown(_name(data, path)), path, options)
        except OSError as error:
            raise InputError(f"{error.filename or data} cannot be read: {error.strerror or one_line(str(error))}.") from error


def _from_memory(data: Any, options: Options) -> Dataset:
    if options.sentences:
        raise InputError("sentences are told apart in CoNLL-U files only: leave it out.")
    name = memory.name(data)
    examples = _take(memory.read_examples(data, options), options.limit, options.enough)
    if not examples and name == "inputs" and not options.report.warnings():
        raise InputError(f"inputs are neither a path nor rows, but empty: give {memory.FORMS}")
    if not examples:
        raise InputError(f"{name} holds nothing to trace: {_why(options)}.")
    name = examples[0].source if name in ("inputs", "ids") else name
    return Dataset(name, memory.digest(examples), _kind(name, examples), examples, options.report.warnings())


def _why(options: Options) -> str:
    return "; ".join(w[0].lower() + w[1:-1] for w in options.report.warnings()) or "it is empty"


def _name(data: str | Path, path: Path) -> str:
    return Path(data).resolve().name if path.exists() and Path(data).expanduser().exists() else str(data)


def _dataset(name: str, path: Path, options: Options) -> Dataset:
    examples = _take(formats.read_examples(path, options), options.limit)
    if not examples:
        raise InputError(f"{name} holds nothing to trace: {_why(options)}.")
    digest = options.report.sha256 or files.sha256(path)
    return Dataset(name, digest, _kind(name, examples), examples, options.report.warnings())


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


def _kind(name: str, examples: Sequence[Example]) -> Kind:
    kinds = {examples[0].kind} if isinstance(examples, Lazy) else {example.kind for example in examples}
    if len(kinds) > 1:
        raise InputError(f"{name} holds both texts and images: pass a folder of one kind.")
    return kinds.pop()


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
