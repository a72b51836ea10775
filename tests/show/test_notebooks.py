"""The notebooks of docs/notebooks run from their scripts, on stores of the shipped models; what stands in the repository is
of today's scripts, small, and seen where no script runs."""

import ast
import base64
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import moescope
from moescope.show import Picture

ROOT = Path(__file__).parents[2]
HOME = ROOT / "docs" / "notebooks"
SCRIPTS = sorted(HOME.glob("*.py"))
sys.path.append(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a reader would be, with the stores that the notebooks would make, of fewer examples."""
    here, before = tmp_path_factory.mktemp("notebooks"), os.getcwd()
    os.chdir(here)
    moescope.trace("mixtral", "text", "mixtral.duckdb", limit=10)
    for name in ("switch", "switch-collapsed"):
        moescope.trace(name, "text", "switch.duckdb", limit=2, name=name)
    moescope.trace("vmoe", "fashion-mnist", "vmoe.duckdb", limit=12)
    moescope.trace("dit_moe", "fashion-mnist", "dit.duckdb", limit=2)
    yield here
    os.chdir(before)


def run(text: str, names: dict[str, Any]) -> Any:
    """The cell's last value, as a kernel shows it."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_cell_runs_and_shows_something(script: Path, folder: Path) -> None:
    from make_notebook import cells

    names: dict[str, Any] = {}
    shown = [run(text, names) for kind, text in cells(script) if kind == "code"]
    pictures = [value for value in shown if isinstance(value, Picture)]
    frames = [value for value in shown if hasattr(value, "columns")]
    assert pictures
    assert all(len(picture.frame) for picture in pictures)
    assert all(len(frame) for frame in frames)
    if script.stem == "a_serving_capture":
        assert {key: value[key] for value in shown if isinstance(value, dict) for key in ("differ",)} == {"differ": 0}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_kept_is_of_the_script(script: Path) -> None:
    import nbformat
    from make_notebook import cells

    kept = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == cells(script)
    outputs = [output for cell in kept.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    stills = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert all(base64.b64decode(still).startswith(b"\x89PNG") for still in stills)
    assert [o for o in outputs if "image/png" in o.get("data", {}) and "text/html" in o["data"]] == []  # still ones only
    assert (len(stills) > 0, script.with_suffix(".ipynb").stat().st_size < 100_000) == (True, True)


def test_there_is_a_notebook_for_each_question() -> None:
    assert {path.stem for path in HOME.glob("*.ipynb")} == {path.stem for path in SCRIPTS}
    assert len(SCRIPTS) == 7
