"""How much an input may be: what is endless, or larger than the memory it would fill, is refused before it is read."""

import os
import stat
from pathlib import Path

from ...errors import InputError
from ...memory import room

GROWS = 4  # bytes of memory that a byte of text fills: lines, examples, tokens
_SYSTEM = ("/proc", "/sys", "/dev")


def allow(size: int, source: str, what: str = "it would fill", cure: str = "give a part of it") -> None:
    """InputError for more bytes than there is room for."""
    if size > room():
        raise InputError(f"{source} is too large: {what} {size:,} bytes of memory, and {room():,} are there for it; {cure}.")


def not_the_system(path: Path) -> None:
    """InputError for the folders in which the system shows itself: they have no end."""
    real = path.resolve()
    inside = any(real.is_relative_to(name) for name in _SYSTEM) and not real.is_relative_to("/dev/shm")
    if (inside and path.exists()) or real == Path(real.anchor):
        raise InputError(f"{path} is a part of the system, not a data set: name a file or folder of your own.")


def read_bytes(path: Path, source: str, grows: int = GROWS) -> bytes:
    """A file as it is now; what is written to it meanwhile is left out. InputError for a device or pipe, or one too large."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would wait for somebody to write
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{source} is a device, pipe or socket: give a file.")
        allow(grows * status.st_size, source)
        return file.read(status.st_size)
