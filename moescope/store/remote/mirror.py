"""What of a store elsewhere is on this machine: its small file, and of the shards beside it all but their rows.

Elsewhere it is a folder as it would be here, so that copying that folder makes a store of one machine of it:

store.duckdb                          the file, put when it is changed
store.duckdb.parts/<uid>/...          heads of runs, shards, sums; a shard counts once its progress.json is there

`pull` brings here what changed there, `push` brings there what changed here: rows first, then what says that they are there,
removals last; so a kill at any instant leaves what is there readable, and what is not put yet lies here and is put by the next
`push`. `state.json` says what was the same on both sides when, and a shard that is there is emptied here.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from ...errors import StoreError
from . import hollow
from .place import Place
from .sides import SHARD, STORE, YOUNG, being_written, counts, order, read, settled, stat_of, write

_GLANCE_S = 2.0
_AT_ONCE = 16
Listing = dict[str, tuple[int, str]]


class Mirror:
    """The folder on this machine of one store elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.address = json.loads((self.folder / "address.json").read_text())["address"]
        self.place = Place(self.address)
        self._looked = 0.0

    def glance(self) -> None:
        """`pull`, but not again and again; where another process of this machine writes, what is here is the newest."""
        if time.monotonic() - self._looked > _GLANCE_S:
            with suppress(BlockingIOError):
                self.pull(wait=False)
            self._looked = time.monotonic()

    def pull(self, wait: bool = True) -> None:
        """Bring here what changed there. StoreError if it cannot be read; BlockingIOError if another writes and not `wait`."""
        with self._alone(wait):
            before = None
            for _ in range(5):
                if (listing := self._listing()) == before or not self._pulled(listing):
                    return
                before = listing  # the file may be newer than what was listed beside it
        raise StoreError(f"{self.address} changes faster than it can be read; try again")

    def _pulled(self, listing: Listing) -> bool:
        """Whether there was anything to bring."""
        state = self._state()
        new = {name for name, (size, version) in listing.items() if self._differs(state, name, f"{size} {version}")}
        gone = {name for name in state if name not in listing}
        shards = {found[1] for name in new if (found := SHARD.fullmatch(name))}
        described = {name.rpartition("/")[0] for name in listing if name.endswith("/kept.json")}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: self._shard(one, listing, one.rpartition("/")[0] in described), sorted(shards)))
        others = (name for name in new if SHARD.fullmatch(name) is None)
        for name in sorted(others, reverse=True):  # the file last: what it describes is here
            self._file(name)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
            del state[name]
        self._swept(gone)
        for name in new | {name for name in listing if (found := SHARD.fullmatch(name)) and found[1] in shards}:
            state[name] = [settled(name, *listing[name]), *stat_of(self.folder / name)]
        if new or gone:
            write(self.folder / "state.json", state)
        return bool(new)

    def _differs(self, state: Mapping[str, Any], name: str, version: str) -> bool:
        """Whether what is there is to be brought here: not what waits here to be put, nor what was removed."""
        if any(f"{name}/".startswith(f"{one}/") for one in self._removed()):
            return False
        if name in state or name == STORE or not (self.folder / name).exists():
            return not (self.folder / name).exists() or state.get(name, [None])[0] != version
        return not being_written(self.folder.joinpath(*Path(name).parts[:2]))  # another machine went on: what it put counts

    def _shard(self, shard: str, listing: Listing, described: bool) -> None:
        """A folder of a part: all but its rows; of one that the store's file describes, lengths alone."""
        folder = self.folder / shard
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        empty = []
        for name in (name for name in listing if name.startswith(f"{shard}/")):
            file, size = temporary / Path(name).name, listing[name][0]
            if hollow.worth(size, name) or (described and name.endswith(".parquet")):
                empty.append(file.name)
                hollow.write(file, size, b"" if described else self._end(name, size))
            else:
                self.place.fetch(name, file)
        hollow.mark(temporary, f"{self.address}/{shard}", empty)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)

    def _end(self, name: str, size: int) -> bytes:
        with self.place.open(name) as file:
            return hollow.end_of(file, size)

    def _file(self, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.pulled")
        self.place.fetch(name, temporary)
        os.replace(temporary, target)
        if target.name == "head.json":
            (target.parent / "alive").touch()  # to be locked by who goes on with it here

    def _swept(self, gone: set[str]) -> None:
        """Folders of which nothing is there any more, neither here to be put nor there."""
        for name in {f"{STORE}.parts/{name.split('/')[1]}" for name in gone if "/" in name}:
            if not any((self.folder / name).glob("**/*.parquet")) and not (self.folder / name / "head.json").exists():
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def push(self, store: Path | None = None) -> bool:
        """Bring there what changed here; `store`: a file that is about to take the place of the store's. False, and that is
        not done, where another machine changed it meanwhile. StoreError where the other side does not take it: it stays here.
        """
        with self._alone(), self._kept() as waiting:
            state = self._state()
            waiting += [name for name in self._here() if state.get(name, [None])[1:] != stat_of(self.folder / name)]
            if waiting:
                self._put(waiting, state)
            if removed := self._removed():
                self._remove(removed, state)
            return store is None or self._replaced(store, state)

    @contextmanager
    def _kept(self) -> Iterator[list[str]]:
        """Say that nothing of a run is lost, where something waits here: what is named meanwhile, or a run that is open."""
        waiting: list[str] = []
        try:
            yield waiting
        except StoreError as error:
            if not waiting and not any(self.folder.glob(f"{STORE}.parts/*/head.json")):
                raise
            raise StoreError(
                f"{error}; nothing is lost: what was traced waits in {self.folder}, go on with --resume"
            ) from error

    def _put(self, changed: list[str], state: dict[str, Any]) -> None:
        self._unclaimed([name for name in changed if name not in state])
        whole = [name for name in changed if not hollow.is_hollow(self.folder / name)]
        files = [(self.folder / name, name) for name in sorted(whole, key=order)]
        for _, some in [("", files)] if self.place.kind == "hf" else groupby(files, lambda one: order(one[1])):
            self.place.put(list(some))
        there = self._listing()
        for shard in {found[1] for name in changed if (found := SHARD.fullmatch(name))}:
            hollow.empty(self.folder / shard, f"{self.address}/{shard}")
        state |= {name: [settled(name, *there[name]), *stat_of(self.folder / name)] for name in changed if name in there}
        write(self.folder / "state.json", state)

    def _remove(self, removed: list[str], state: dict[str, Any]) -> None:
        under = tuple(f"{one}/" for one in removed)
        gone = [name for name in self.place.files() if name.startswith(under) or name in removed]
        self.place.remove(sorted(gone, key=order, reverse=True))  # first what says that the rest is there
        for name in [name for name in state if name.startswith(under) or name in removed]:
            del state[name]
        write(self.folder / "state.json", state)
        (self.folder / "removed.json").unlink()

    def _unclaimed(self, new: list[str]) -> None:
        """StoreError if another machine has put what is about to be put: two would write one run."""
        shards = [name for name in new if name.endswith("/progress.json")]
        there = self._listing() if shards else {}
        if taken := [n for n in shards if n in there and self.place.read(n) != (self.folder / n).read_bytes()]:
            raise StoreError(
                f"{self.address} has {taken[0].rpartition('/')[0].partition('.parts/')[2]} already, of another machine that "
                "goes on with the same run; leave one of them, and go on with --resume"
            )

    def _replaced(self, store: Path, state: dict[str, Any]) -> bool:
        there, known = self._listing().get(STORE), state.get(STORE, [None])[0]
        if (f"{there[0]} {there[1]}" if there else None) != (known.removesuffix(YOUNG) if known else None):
            return False
        self.place.put([(store, STORE)])
        state[STORE] = [settled(STORE, *self._listing()[STORE]), 0, 0]
        write(self.folder / "state.json", state)
        return True

    def forget(self, path: Path) -> None:
        """A part, shard or file is about to be removed here: the next `push` removes it there."""
        name = Path(os.path.abspath(path)).relative_to(self.folder).as_posix()
        with self._alone():
            write(self.folder / "removed.json", sorted({*self._removed(), name}))

    def _removed(self) -> list[str]:
        return list(read(self.folder / "removed.json", []))

    def _here(self) -> list[str]:
        """What of the runs is to be put, or was."""
        found = [path.relative_to(self.folder).as_posix() for path in self.folder.glob(f"{STORE}.parts/*/**/*.*")]
        whole = {name for name in found if name.endswith("/progress.json")}
        return [name for name in found if counts(name, whole)]

    def _listing(self) -> Listing:
        """What counts of what is there: no shard without its progress.json, nothing that is not moescope's."""
        found = self.place.files()
        whole = {name for name in found if name.endswith("/progress.json")}
        return {name: said for name, said in found.items() if name == STORE or counts(name, whole)}

    def _state(self) -> dict[str, Any]:
        return dict(read(self.folder / "state.json", {}))

    def version(self) -> tuple[Any, ...]:
        """Changes when the store's file does, the same on every machine."""
        return (self.address, self._state().get(STORE, [None])[0])

    @contextmanager
    def _alone(self, wait: bool = True) -> Iterator[None]:
        """One process of this machine at a time."""
        try:
            import fcntl
        except ImportError:  # no such locks here, and so nobody who writes
            yield
            return
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
