"""What other libraries raise, as one sentence: `doing` says what was being done, `said` what went wrong.

Layers that touch a foreign library on a user's input put it into `with doing("reading corpus.jsonl", InputError):`. Whatever is
raised inside becomes that error, of which the command line prints one sentence; without a kind the exception stays what it is
and only remembers what was being done. Classes and error numbers are looked at, never words of a message.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import MoescopeError

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|Cannot allocate memory|CUDA out of memory|os error 12\b|not enough memory: you")
_LESS = "give less at once (--batch-size, --max-length), or spread the model (--device auto --max-memory)"
_WORDS = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EACCES: "permission denied; check its owner and mode",
    errno.EPERM: "permission denied; check its owner and mode",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ENOENT: "it is not there",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENOMEM: "there is not enough memory",
}


@contextmanager
def doing(what: str, kind: type[MoescopeError] | None = None) -> Iterator[None]:
    """Say what is being done ("reading x.npz"); with `kind`, whatever a library raises leaves as that error, in one sentence.

    The innermost `doing` speaks. Errors of moescope, Ctrl-C and exits pass as they are.
    """
    try:
        yield
    except (MoescopeError, KeyboardInterrupt, SystemExit, GeneratorExit, BrokenPipeError):
        raise
    except BaseException as error:  # a panic in Rust code is no Exception
        with suppress(AttributeError, TypeError):
            error.__dict__.setdefault("doing", what)
        if kind is None:
            raise
        raise kind(said(error)) from error


def said(error: BaseException) -> str:
    """One sentence of an exception: what was being done, what is wrong, the class where the message is a library's own."""
    what = getattr(error, "doing", None)
    return (f"{what} failed: " if what else "") + _wrong(error)


def one_line(text: str, most: int = 300) -> str:
    """`text` without line breaks and control characters, of at most so many characters."""
    line = re.sub(r"\s*[\n\r]\s*", " ", text.strip())
    line = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), line)
    return line if len(line) <= most else f"{line[:most]} …"


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: of Python, of a system call, of a GPU, or of torch on a CPU, which tells it in words alone."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names and "RuntimeError" in names:
        return True
    told = isinstance(error, RuntimeError) or "SafetensorError" in names
    return told and bool(_NO_MEMORY.search(str(error)))


def _wrong(error: BaseException) -> str:
    if out_of_memory(error):
        gpu = re.search(r"GPU \d+", str(error))
        where = f" on {gpu[0]}" if gpu else ""
        return f"there is not enough memory{where}; " + (_LESS if isinstance(error, RuntimeError) else "give less at once")
    if isinstance(error, RecursionError):
        return "something is nested too deeply to be read"
    if isinstance(error, UnicodeEncodeError):
        return f"the text holds {error.object[error.start : error.start + 1]!a}, which {error.encoding} cannot hold"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not {error.encoding} text"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{_name(error.filename)}: " if error.filename is not None else ""
        return where + _WORDS.get(error.errno, (error.strerror or "the system refuses").lower())
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}, without a word"


def _name(filename: object) -> str:
    return one_line(filename if isinstance(filename, str) else str(filename), 200)
