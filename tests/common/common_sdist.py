"""Transformers' own common tests, brought by pip from the source distribution of the version that is installed.

They are kept in the user's cache, never in the tree. The distribution ships `tests/test_*.py` alone; the two mixins that
`test_modeling_common.py` takes from folders beside it stand here as empty classes.
"""

import importlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transformers
from transformers import testing_utils

PACKAGE = "transformers_own_tests"
ABSENT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}


@cache
def common() -> Any:
    """The module `tests/test_modeling_common.py`; skips the test that asks where pip cannot bring it."""
    pytest.importorskip("parameterized", reason="Transformers' own tests need the package parameterized")
    folder = _folder()
    _package(PACKAGE, folder)
    for name, mixin in ABSENT.items():
        parent, _, _ = name.partition(".")
        if not (folder / parent).is_dir():
            _package(f"{PACKAGE}.{parent}", folder / parent)
            module = sys.modules[f"{PACKAGE}.{name}"] = ModuleType(f"{PACKAGE}.{name}")
            setattr(module, mixin, type(mixin, (), {}))
    return importlib.import_module(f"{PACKAGE}.test_modeling_common")


def marks() -> set[str]:
    """Names of pytest's marks in Transformers' own tests and what they are written with."""
    sources = [_folder() / "test_modeling_common.py", Path(testing_utils.__file__)]
    return {name for path in sources for name in re.findall(r"\bmark\.(\w+)", path.read_text("utf-8"))}


def _package(name: str, folder: Path) -> None:
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]


def _folder() -> Path:
    """The distribution's folder of tests; whoever comes first puts it there whole."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moescope-tests"
    folder = cached / f"transformers-{transformers.__version__}"
    if not folder.is_dir():
        cached.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached) as scratch:
            made = _extract(_download(Path(scratch)), Path(scratch) / "made")
            with suppress(OSError):  # another process was faster
                made.rename(folder)
    return folder


def _download(folder: Path) -> Path:
    wanted = f"transformers=={transformers.__version__}"
    quick = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *quick, "--no-deps", "--no-binary", "transformers", wanted]
    ended = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, timeout=300)
    found = list(folder.glob("transformers-*.tar.gz"))
    if ended.returncode or not found:
        why = (ended.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        pytest.skip(f"pip cannot bring the source distribution of {wanted}: {why}")
    return found[0]


def _extract(archive: Path, folder: Path) -> Path:
    """Only the Python files of the tests."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, inside = member.name.partition("/")
            if member.isfile() and inside.startswith("tests/") and inside.endswith(".py"):
                member.name = inside.removeprefix("tests/")
                tar.extract(member, folder, filter="data")
    return folder
