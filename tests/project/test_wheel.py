"""The wheel, in an environment of its own outside the repository: everything that a user needs is inside it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.slow
NEEDED = [
    "moescope/store/schema.sql",
    "moescope/store/views.sql",
    "moescope/py.typed",
    "moescope/app/main.py", "moescope/app/.streamlit/config.toml", "moescope/pictures/browser/heat_map.js",
    "moescope/_datasets/text/README.md",
    "moescope/_datasets/fashion-mnist/README.md",
    *(f"moescope/models/specimens/{name}/config.json" for name in ("mixtral", "switch", "vmoe")),
    *(f"moescope/models/specimens/{name}/model.safetensors" for name in ("mixtral", "switch", "vmoe")),
    *(f"moescope/models/zoo/weights/{name}.{kind}" for name in ("dit_moe", "mor", "limoe") for kind in ("json", "safetensors")),
]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("moescope-*.whl"))


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and the dependencies of this one; not this one's moescope."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site.stdout.strip())
    Path(site.stdout.strip(), "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MOESCOPE"))} | {"OMP_NUM_THREADS": "1"}
    script = "import moescope; assert 'env' in moescope.__file__, moescope.__file__; from moescope.cli import main; main()"
    return subprocess.run(
        [home / "env" / "bin" / "python", "-c", script, *arguments], cwd=home, capture_output=True, text=True, env=environment
    )


def test_everything_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        assert [name for name in NEEDED if name not in names] == []
        assert "moescope = moescope.cli:main" in file.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
        assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "moescope" / "app").rglob("*.py")} <= names
        assert [n for n in names if "__pycache__" in n or n.startswith(("tests/", "benchmarks/", "datasets/"))] == []
        assert sum(i.file_size for i in file.infolist() if "/specimens/" in i.filename) <= 60e6
    assert wheel.stat().st_size < 30e6


def test_trace_and_app(home: Path) -> None:
    traced = run(home, "trace", "mixtral", "--data", "text", "--limit", "3", "--store", "x.duckdb")
    assert traced.returncode == 0, traced.stderr
    assert "run 0: mixtral (mixtral) on text, complete" in traced.stdout
    asked = run(home, "sql", "x.duckdb", "select status, sequences >= 3 as enough from runs", "--format", "csv")
    assert asked.stdout == "status,enough\ncomplete,true\n"
    assert run(home, "verify", "x.duckdb", "-q").stdout.startswith("x.duckdb is sound")
    shown = run(home, "app", "--help")
    assert (shown.returncode, "dashboard" in shown.stdout) == (0, True)
