"""A shard is made in a folder of another name, and takes its own once all of it is on the disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import MoescopeError, StoreError
from ..files.durable import sync
from ..remote.addresses import push


@contextmanager
def committed(store: Path, part: Path, number: int) -> Iterator[Path]:
    """A folder to fill with shard `number` of `part`, progress.json included; behind the block it is durable, or not there.

    StoreError where the disk does not take it.
    """
    shard = part / f"shard-{number:06d}"
    temporary = shard.with_suffix(".tmp")
    if shard.exists():
        raise StoreError(f"{store} has {shard.name} already: somebody else goes on with the same run; leave one of them to it")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir(exist_ok=True)
        yield temporary
        sync(temporary / "progress.json")
        sync(temporary)
        os.rename(temporary, shard)
        sync(part)
        push(store)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(
            f"writing to {store} failed: {error.strerror or error}; what was committed before is safe in "
            f"{part.name}: make room and go on with --resume"
        ) from error
    except MoescopeError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
