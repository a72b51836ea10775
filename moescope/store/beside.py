"""What lies beside a store: its unfinished runs, and what is left aside, with the reason. One broken run hides no other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .parts import Part, parts_folder


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

    parts: list[Part]
    aside: list[Aside]


def beside(store: Path, uid: str | None, joined: set[str]) -> Beside:
    """What lies beside the store that has this identity and these parts in it already."""
    found = Beside([], [])
    for path in _listed(parts_folder(store)):
        if path.name in joined or Part(path).forgotten():
            continue
        looked = _look(store, path, uid)
        if isinstance(looked, Part):
            found.parts.append(looked)
        elif looked is not None:
            found.aside.append(looked)
    found.parts.sort(key=lambda part: (str(part.head["run"].get("started")), part.path))
    return found


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # the folder goes with its last part
        return


def _look(store: Path, path: Path, uid: str | None) -> Part | Aside | None:
    """A run of this store, or why it is none; None if it went meanwhile."""
    if path.is_symlink() or not path.is_dir():
        return Aside(path, "it is no folder of a run; move it elsewhere") if path.exists() or path.is_symlink() else None
    if path.suffix == ".aside":
        return Aside(path, "shards of a run that could not be joined with it; remove the folder when they are not needed")
    part = Part(path)
    try:
        head = part.head
    except (OSError, ValueError) as error:
        if not path.exists() or part.forgotten():
            return None
        return Aside(path, f"its head.json cannot be read ({getattr(error, 'strerror', None) or error}); put it back, or move it")
    if head.get("store") != uid:
        said = f"a run of {head['model'].get('name')}, begun {head['run'].get('started')}"
        return Aside(path, f"{said}, of another store of this name; moescope recover {store} --adopt joins it", foreign=True)
    return part
