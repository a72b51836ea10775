"""What lies beside a store: its unfinished runs, and what is left aside, with the reason. One broken run hides no other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .unfinished_run import KEPT, UnfinishedRun, parts_folder

_PART = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class Aside:
    """Something in STORE.parts that is not shown as a run of the store: why not, and what can be done."""

    path: Path
    why: str
    foreign: bool = False  # a run of another store, which could be adopted

    def __str__(self) -> str:
        return f"left aside: {self.path.parent.name}/{self.path.name}: {self.why}"


@dataclass(frozen=True)
class Beside:
    """Runs that are not joined yet, oldest first, and what is left aside."""

    parts: list[UnfinishedRun]
    aside: list[Aside]


def look(store: Path) -> list[UnfinishedRun | Aside]:
    """Everything in STORE.parts, the heads of runs read unless they lie there to stay: to be asked before the file is opened.

    What is joined from then on loses its head first; but the file that was opened before may not have it yet.
    """
    return [found for path in _listed(parts_folder(store)) if (found := _found(path)) is not None]


def beside(store: Path, looked: list[UnfinishedRun | Aside], uid: str | None, joined: set[str]) -> Beside:
    """What of that belongs to the store that has this identity, and these parts in it already."""
    found = Beside([], [])
    for thing in (_read(thing) for thing in looked if thing.path.name not in joined):
        if thing is None or isinstance(thing, Aside):
            found.aside.extend([thing] if thing else [])
        elif thing.head.get("store") == uid:
            found.parts.append(thing)
        else:
            found.aside.append(_foreign(store, thing))
    found.parts.sort(key=lambda part: (str(part.head["run"].get("started")), part.path))
    return found


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # the folder goes with its last part
        return


def _found(path: Path) -> UnfinishedRun | Aside | None:
    """A run, or why it is none; None if it goes, or went meanwhile."""
    kept = _PART.fullmatch(path.name) and (path / KEPT).exists() and not (path / "head.json").exists() and not path.is_symlink()
    return UnfinishedRun(path) if kept else _read(UnfinishedRun(path))


def _read(thing: UnfinishedRun | Aside) -> UnfinishedRun | Aside | None:
    """The same, its head read."""
    if isinstance(thing, Aside) or "head" in thing.__dict__:
        return thing
    part, path = thing, thing.path
    if path.is_symlink() or not path.is_dir():
        return Aside(path, "it is no folder of a run; move it elsewhere") if path.exists() or path.is_symlink() else None
    if path.suffix == ".aside":
        return Aside(path, "shards of a run that could not be joined with it; remove the folder when they are not needed")
    if part.forgotten():
        return None
    try:
        return part if part.head else None
    except (OSError, ValueError) as error:
        if not path.exists() or part.forgotten():
            return None
        return Aside(
            path, f"its head.json cannot be read ({getattr(error, 'strerror', None) or error}); put it back, or move it"
        )


def _foreign(store: Path, part: UnfinishedRun) -> Aside:
    said = f"a run of {part.head['model'].get('name')}, begun {part.head['run'].get('started')}"
    why = f"{said}, of another store of this name; moescope recover {store} --adopt joins it"
    return Aside(part.path, why, foreign=True)
