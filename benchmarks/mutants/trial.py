"""Tests in a fork of this process, which has loaded the large libraries already: nothing of moescope, and not the tests."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .copies import ROOT, Copy

_LARGE = (
    "torch", "transformers", "duckdb", "pyarrow.parquet", "pandas", "numpy", "scipy.stats", "sklearn.linear_model", "pytest",
    "numba", "hypothesis", "altair", "streamlit.testing.v1", "datasets", "transformers.models.mixtral.modeling_mixtral",
    "transformers.models.switch_transformers.modeling_switch_transformers", "transformers.trainer",
)  # fmt: skip


def preload() -> None:
    """Import once what every test would import for itself."""
    import importlib
    from contextlib import suppress

    for name in _LARGE:
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    assert not any(name.partition(".")[0] == "moescope" for name in sys.modules), "moescope must be imported in the forks"


@dataclass
class Trial:
    """One run of pytest in a fork; `answer` is filled in by `done`."""

    copy: Copy
    limit: float
    arguments: Sequence[str]
    plugin: Callable[[Path], Any]
    answer: dict[str, Any] = field(default_factory=dict)
    _pid: int = 0
    _began: float = 0.0

    def start(self) -> "Trial":
        """Begin; `done` says when it has ended."""
        self._result.unlink(missing_ok=True)
        self._began = time.monotonic()
        self._pid = os.fork()
        if not self._pid:
            self._child()
        return self

    @property
    def _result(self) -> Path:
        return self.copy.folder / "result.json"

    def _child(self) -> None:
        code = 3
        try:
            os.setsid()
            _settle(self.copy)
            import pytest

            base = self.copy.folder / "tmp"
            shutil.rmtree(base, ignore_errors=True)
            given = ["-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", f"--basetemp={base}", *self.arguments]
            code = int(pytest.main(given, plugins=[self.plugin(self._result)]))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def done(self) -> bool:
        """Whether it has ended, or been ended for its time; then `answer` has `exit` (None: the time was up) and `seconds`."""
        found, status = os.waitpid(self._pid, os.WNOHANG)
        late = not found and time.monotonic() - self._began > self.limit
        if late:
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        if not found and not late:
            return False
        said = json.loads(self._result.read_text()) if self._result.exists() else {}
        code = None if late else os.waitstatus_to_exitcode(status)
        self.answer = said | {"exit": code, "seconds": time.monotonic() - self._began}
        return True


def _settle(copy: Copy) -> None:
    """Make this process one that stands in the copy, in which nothing compiled of a mutant is kept."""
    out = os.open(copy.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(copy.tree)
    sys.path[:] = [str(copy.tree), *(p for p in sys.path if p and Path(p).resolve() not in (ROOT, copy.tree))]
    for name in [n for n in sys.modules if n.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    os.environ.update(
        PYTHONPATH=os.pathsep.join([str(copy.folder / "site"), str(copy.tree)]),
        PYTHONDONTWRITEBYTECODE="1",
        NUMBA_CACHE_DIR=str(copy.folder / "numba"),
    )
