"""benchmarks.gpu, rehearsed on what gpu_pack copies; and what both say of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_pack
from benchmarks.gpu.here import Row
from docs import update_readme

NOT_THERE = {"streamlit", "altair", "umap", "nnsight", "transformer_lens", "datasets", "deepspeed", "diffusers", "vl_convert"}
_AT_EXIT = """import atexit, os, sys
def tell():
    with open(os.environ["LOADED"], "a") as file:
        file.writelines(name + chr(10) for name in {n.partition(".")[0] for n in sys.modules})
atexit.register(tell)
"""


@pytest.mark.slow
@pytest.mark.sampled(0)
def test_what_is_packed_runs_by_itself_and_needs_only_what_is_there(tmp_path: Path) -> None:
    gpu_pack.code(tmp_path / "packed")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_AT_EXIT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": f"{tmp_path / 'hook'}:{tmp_path / 'packed'}", "LOADED": str(tmp_path / "loaded")}
    call = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--rehearse",
        "--few",
        "--only",
        "checks",
        "--out",
        str(tmp_path / "r.json"),
    ]
    done = subprocess.run(call, cwd=tmp_path / "packed", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["rehearsal"] is True
    assert {name: part["ended"] for name, part in found["sections"].items()} == {"checks": "complete"}
    rows = [(row["what"].partition(",")[0], row["good"]) for row in found["sections"]["checks"]["rows"]]
    assert rows == [("mixtral", True), ("mixtral", True), ("qwen3_moe", True), ("qwen3_moe", True)]
    assert not NOT_THERE & set((tmp_path / "loaded").read_text().split())
    assert gpu_pack.mebibytes(tmp_path / "packed") < 25  # wheels take 36.3 of the 64 MiB


def test_wheels_are_those_of_the_constraints() -> None:
    names = [name.partition("==") for name in gpu_pack.pinned()]
    assert [name for name, _, version in names if version] == ["duckdb", "transformers", "rich"]


def test_too_much_is_refused_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_pack, "code", lambda dest: (dest / "moescope").mkdir(parents=True))
    monkeypatch.setattr(
        gpu_pack, "download", lambda folder, _: (folder.mkdir(), (folder / "x.whl").write_bytes(b"0" * (3 << 20)))
    )
    monkeypatch.setattr(gpu_pack, "LIMIT", 2)
    monkeypatch.setattr(sys, "argv", ["gpu_pack", str(tmp_path / "dest")])
    assert gpu_pack.main() == 1
    assert not (tmp_path / "dest").exists()
    assert "3.0 MiB are more than the 2 that may travel: nothing is packed" in capsys.readouterr().err


def test_only_a_gpu_gives_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "benchmarks" / "gpu" / "results.json"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(update_readme, "DEMO", tmp_path / "demo.duckdb")
    assert update_readme.gpu().startswith("Not measured on a GPU yet")
    rows = [Row("a", 1.5, "×", (1.0, 2.0)).__dict__, Row("b", "it broke", good=False).__dict__]
    found = {"rehearsal": True, "date": "2026-01-02", "gpu": "a card", "system": "some", "versions": {"torch": "2"}}
    found["sections"] = {"speed": {"ended": "complete", "seconds": 3.0, "rows": rows}}
    file.write_text(json.dumps(found))
    assert update_readme.gpu().startswith("Not measured on a GPU yet")
    file.write_text(json.dumps(found | {"rehearsal": False}))
    assert update_readme.gpu().splitlines()[2:] == [
        "| speed: complete, 3 s | | spread |", "|---|---|---|", "| a | 1.5 × | 1 … 2 |", "| b | **fails:** it broke  |  |",
    ]  # fmt: skip
