"""Other libraries say nothing while a command runs: no warnings, no log lines, no progress bars, nothing from C or Rust.

What moescope itself says on standard error goes on to where it went.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Until the block ends."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)  # read when the libraries are imported, which is later
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _descriptor():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _descriptor() -> Iterator[None]:
    """Descriptor 2 leads nowhere, since libraries in C and Rust write there; `sys.stderr` keeps a copy of it."""
    stream = sys.stderr
    if not _is_descriptor(stream):
        yield
        return
    stream.flush()
    copy = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = open(copy, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        ours, sys.stderr = sys.stderr, stream
        try:
            ours.flush()
        finally:
            os.dup2(copy, 2)
            os.close(copy)


def _is_descriptor(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return False
