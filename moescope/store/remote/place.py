"""A folder on another file system, by its address: what lies in it, and reading, putting and removing it.

`s3://`, `gs://` and `abfs://` go through pyarrow, which brings them along; `hf://` through huggingface_hub; `memory://` and
what else fsspec knows through that. Who may do it is found where those look for it (AWS_ACCESS_KEY_ID, AWS_PROFILE, HF_TOKEN,
...; another server of S3 by AWS_ENDPOINT_URL); nothing of it is kept.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from ...errors import InputError, StoreError

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)
KNOWN = ("s3", "gs", "abfs", "abfss", "hf", "memory")
_ARROW = ("gs", "abfs", "abfss")
_ONE_OF = re.compile(r"datasets/[\w.-]+/[\w.-]+(/[\w./-]+)?")
_PATIENCE = {"gs": "?retry_limit_seconds=30"}  # its own is a quarter of an hour
_AT_ONCE = 8
_PROBE = "may-be-written"
_TRIES, _PAUSE_S = 3, 2.0
_NEVER = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET", "401", "403", "404")


def is_address(text: object) -> bool:
    """Whether it is an address of another file system. A path, such as `s3:/x`, is none."""
    return isinstance(text, str) and ADDRESS.fullmatch(text) is not None


class Place:
    """A folder by its address. Raises StoreError in one sentence for whatever the other side says."""

    def __init__(self, address: str) -> None:
        found = ADDRESS.fullmatch(address)
        if found is None or found[1] not in KNOWN:
            raise InputError(f"{address!r} is no address of where stores lie: {', '.join(KNOWN)}; or say a path")
        self.kind, self.root = found[1], found[2].strip("/")
        self.address = f"{self.kind}://{self.root}"
        if not self.root or ".." in self.root.split("/"):
            raise InputError(f"{address} names no folder; say {self.kind}://BUCKET/FOLDER")
        if self.kind == "hf" and not _ONE_OF.fullmatch(self.root):
            raise InputError(f"{address} is no data set of the hub; say hf://datasets/OWNER/NAME")

    def files(self) -> dict[str, tuple[int, str]]:
        """{path below the folder: (bytes, what changes when it does)}; nothing where there is no such folder."""
        with self._said("cannot be listed"):
            return _listed(self)

    def read(self, name: str, first: int | None = None) -> bytes:
        """A file, or its bytes from `first` on (negative: so many before its end)."""
        with self._said(f"cannot be read: {name}"):
            return bytes(self.system.cat_file(f"{self.root}/{name}", start=first, end=None))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to this machine."""
        with self._said(f"cannot be read: {name}"), self.open(name) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 22)

    def open(self, name: str) -> Any:
        """A file for reading, at any place of it."""
        return self.system.open(f"{self.root}/{name}", "rb")

    def put(self, files: Sequence[tuple[Path, str]]) -> None:
        """Put local files: each is there whole or not at all (of a data set of the hub, all of them together)."""
        with self._said("does not take what is written to it"):
            for trial in range(1, _TRIES + 1):
                try:
                    self._put(files)
                    break
                except Exception as error:
                    if trial == _TRIES or any(word in str(error) for word in _NEVER):
                        raise
                    time.sleep(_PAUSE_S * trial)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no fault."""
        with self._said("does not let files be removed"):
            _removed(self, list(names))

    def check_writable(self) -> None:
        """StoreError unless files are taken; of a data set of the hub that is a commit, and so is not tried."""
        if self.kind == "hf":
            return
        with self._said("does not take what is written to it"):
            self.system.pipe_file(f"{self.root}/{_PROBE}", b"moescope")
        with suppress(StoreError):
            self.remove([_PROBE])

    def _put(self, files: Sequence[tuple[Path, str]]) -> None:
        if self.kind == "hf":
            _committed(self, files, ())
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for size, there in pool.map(lambda one: self._put_one(*one), files):
                if size != there:
                    raise OSError(f"of {size} bytes {there} arrived")

    def _put_one(self, file: Path, name: str) -> tuple[int, int]:
        path = f"{self.root}/{name}"
        with file.open("rb") as source, self.system.open(path, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 22)
        return file.stat().st_size, int(self.system.info(path)["size"])

    @property
    def system(self) -> Any:
        """The file system, as fsspec has them."""
        return _system(self.kind, self.root.partition("/")[0], os.getpid())

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, InputError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise StoreError(f"{self.address} {what} ({_why(error)})") from error


@cache
def _system(kind: str, bucket: str, process: int) -> Any:
    """One per process: a forked one cannot use its parent's threads."""
    if kind == "s3":
        return _wrapped(_s3(bucket))
    if kind in _ARROW:
        from pyarrow import fs

        return _wrapped(fs.FileSystem.from_uri(f"{kind}://{bucket}{_PATIENCE.get(kind, '')}")[0])
    if kind == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem(skip_instance_cache=True)
    import fsspec

    return fsspec.filesystem(kind)


def _s3(bucket: str) -> Any:
    """As the environment says; without an endpoint of its own the region is asked for where the environment has none."""
    from pyarrow import fs

    said = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    patience: dict[str, Any] = {"connect_timeout": 5.0, "request_timeout": 30.0}
    if said:
        scheme, _, host = said.rpartition("://")
        return fs.S3FileSystem(
            endpoint_override=host.rstrip("/"), scheme=scheme or "https", region=region or "us-east-1", **patience
        )
    return fs.S3FileSystem(region=region or fs.resolve_s3_region(bucket), **patience)


def _wrapped(system: Any) -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(system, skip_instance_cache=True)


def _listed(place: Place) -> dict[str, tuple[int, str]]:
    cut = len(place.root) + 1
    if place.kind in ("s3", *_ARROW):
        from pyarrow.fs import FileSelector, FileType

        system, (bucket, _, _) = place.system.fs, place.root.partition("/")
        found = system.get_file_info(FileSelector(place.root, recursive=True, allow_not_found=True))
        if not found and system.get_file_info(bucket).type == FileType.NotFound:
            raise FileNotFoundError(f"there is no bucket {bucket}, or none that you may see")
        return {one.path[cut:]: (one.size, f"{one.mtime_ns}") for one in found if one.type == FileType.File}
    system = place.system
    system.invalidate_cache()
    try:
        there = system.find(place.root, detail=True)
    except FileNotFoundError:
        return {}
    return {name.lstrip("/")[cut:]: (int(info["size"]), _version(info)) for name, info in there.items()}


def _version(info: dict[str, Any]) -> str:
    return str(next((info[key] for key in ("blob_id", "ETag", "etag", "mtime", "created", "LastModified") if key in info), ""))


def _removed(place: Place, names: list[str]) -> None:
    if place.kind == "hf":
        return _committed(place, (), names)
    for name in names:
        try:
            place.system.rm_file(f"{place.root}/{name}")
        except FileNotFoundError:
            continue
    return None


def _committed(place: Place, files: Sequence[tuple[Path, str]], gone: Sequence[str]) -> None:
    """One commit to a data set of the hub, which is made, private, where there is none."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = place.system._api
    _, owner, name, *inside = place.root.split("/")
    at = "".join(f"{part}/" for part in inside)
    operations: list[Any] = [CommitOperationAdd(f"{at}{target}", str(file)) for file, target in files]
    operations += [CommitOperationDelete(f"{at}{target}") for target in gone]
    api.create_repo(f"{owner}/{name}", repo_type="dataset", private=True, exist_ok=True)
    api.create_commit(f"{owner}/{name}", operations, commit_message="moescope trace", repo_type="dataset")
    place.system.invalidate_cache()


def _why(error: Exception) -> str:
    """What the other side says, in one line, without what it says in the middle of a library."""
    text = " ".join(str(error).split()) or type(error).__name__
    for sign, words in _KNOWN.items():
        if sign in text:
            return f"{words}: {shorten(text, 170, placeholder=' ...')}"
    return shorten(text, 240, placeholder=" ...")


_KNOWN = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it first",
    "ACCESS_DENIED": "access is denied; give credentials by the environment, such as AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "INVALID_ACCESS_KEY_ID": "the credentials of the environment are not known there",
    "NETWORK_CONNECTION": "the server does not answer; look at AWS_ENDPOINT_URL and the network",
    "401": "access is denied; give HF_TOKEN or log in",
    "No module named": "a package is missing",
}
