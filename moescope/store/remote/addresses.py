"""Stores by their addresses: where one lies on this machine, and what is brought here and there on the way."""

import hashlib
import os
from functools import cache
from pathlib import Path, PosixPath

from ...errors import StoreError
from . import hollow
from .mirror import Mirror
from .place import Place, is_address
from .sides import STORE, write


class Elsewhere(PosixPath):
    """The path of a store's file on this machine, which sentences call by its address."""

    def __format__(self, how: str) -> str:
        return format(Mirror(self.parent).address if self.name == STORE else str(self), how)


def local(store: str | Path) -> Path:
    """Where a store lies on this machine: a path as it is; of an address what is here of it, brought up to now."""
    if not is_address(store):
        return store if isinstance(store, Path) else Path(store)
    mirror = _made(str(store))
    mirror.pull()
    return Elsewhere(mirror.folder / STORE)


def mirror_of(store: Path) -> Mirror | None:
    """That of a store's file on this machine, or of anything beside it; None for a store that is nowhere else."""
    path = Path(os.path.abspath(store))
    home = hollow.home()
    if not path.is_relative_to(home) or path == home:
        return None
    folder = home / path.relative_to(home).parts[0]
    return _mirror(folder) if (folder / "address.json").is_file() else None


def known_as(store: Path) -> Path | str:
    """How every machine knows a store: by its address, or by its path."""
    mirror = mirror_of(store)
    return store.resolve() if mirror is None else str(mirror.address)


def called(store: Path) -> str:
    """What a store is called among files and on pages: its file's name, or the last part of its address."""
    mirror = mirror_of(store)
    return Path(store).name if mirror is None else mirror.place.root.rpartition("/")[2]


def check_writable(store: Path) -> None:
    """StoreError where a store is elsewhere and nothing may be put there; asked once by a process."""
    if (mirror := mirror_of(store)) is not None:
        _taken(mirror)


@cache
def _taken(mirror: Mirror) -> None:
    mirror.place.check_writable()


def push(store: Path) -> None:
    """Bring there what changed here, where the store is elsewhere."""
    if (mirror := mirror_of(store)) is not None:
        mirror.push()


def pull(store: Path) -> None:
    """Bring here what changed there, where the store is elsewhere."""
    if (mirror := mirror_of(store)) is not None:
        mirror.pull()


def glance(store: Path) -> None:
    """Look for what changed there, where the store is elsewhere."""
    if (mirror := mirror_of(store)) is not None:
        mirror.glance()


@cache
def _mirror(folder: Path) -> Mirror:
    return Mirror(folder)


def _made(address: str) -> Mirror:
    """That of an address, made where there is none yet. StoreError where there is no room for it."""
    place = Place(address)
    folder = hollow.home() / hashlib.sha256(place.address.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "address.json").exists():
            write(folder / "address.json", {"address": place.address})
    except OSError as error:
        raise StoreError(f"{address} needs room on this machine, at {folder}: {error.strerror}") from error
    return _mirror(folder)
