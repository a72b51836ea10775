"""Systems without the locks of Linux and macOS: stores are read there, and writing is refused in one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tracing

import moescope
from moescope.tracer import trace

WITHOUT = """
import os, sys
sys.modules["fcntl"] = sys.modules["resource"] = None  # as on Windows
del os.sysconf
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "run.duckdb"
    trace(tracing.tiny(), tracing.ids(2), path)
    return path


def there(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True)


def test_a_store_is_read(store: Path) -> None:
    code = f"""
import moescope
from moescope import analyses
with moescope.open({str(store)!r}) as store:
    print(store.rows("select count(*) from assignments")[0][0], len(analyses.run("load", store).frames["figures"]) > 0)
"""
    done = there(code)
    with moescope.open(store) as known:
        count = known.rows("select count(*) from assignments")[0][0]
    assert (done.stdout, done.returncode) == (f"{count} True\n", 0), done.stderr


def test_an_unfinished_run_is_read_and_nobody_s(tmp_path: Path, store: Path) -> None:
    copy = tmp_path / "run.duckdb"
    shutil.copy(store, copy)
    code = f"""
from pathlib import Path
from moescope.store.files.durable import SHARED, Lock
from moescope.store import open_store
Lock(Path({str(copy)!r}), SHARED).close()
with open_store({str(copy)!r}) as store:
    print(store.rows("select count(*) from runs"))
"""
    assert there(code).stdout == "[(1,)]\n"


@pytest.mark.parametrize(
    "line",
    ["check_target(Path(sys.argv[1]))", "change_store(Path(sys.argv[1]), lambda con: None)"],
    ids=["trace", "change"],
)
def test_writing_is_refused(tmp_path: Path, store: Path, line: str) -> None:
    copy = tmp_path / "run.duckdb"
    shutil.copy(store, copy)
    before = copy.read_bytes()
    code = f"""
from pathlib import Path
from moescope.errors import StoreError
from moescope.store.write.change import change_store, check_target
sys.argv = ["", {str(copy)!r}]
try:
    {line}
except StoreError as refusal:
    print(refusal)
"""
    said = there(code)
    assert said.stdout.startswith("stores cannot be written here: this system (posix) lacks the file locks"), said.stderr
    assert said.stdout.count("\n") == 1
    assert copy.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]
