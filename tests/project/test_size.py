"""The repository stays small: it travels whole to machines without a network, beside a model and some wheels."""

import lzma
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from places import ROOT

import moescope

MIB = 1 << 20
FILES, LINES, LINES_OF_TESTS = 20, 250, 380  # Python files of a folder, lines of a file
LARGEST = {"moescope/models/specimens/mixtral/model.safetensors": 10}  # MiB; everything else below 7


def tracked() -> dict[str, int]:
    """Bytes of every tracked file."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return {name: (ROOT / name).stat().st_size for name in listed.split("\0") if (ROOT / name).is_file()}


def test_tracked_files() -> None:
    sizes = tracked()
    assert sum(sizes.values()) <= 40 * MIB, sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert {name for name, size in sizes.items() if size > LARGEST.get(name, 7) * MIB} == set()


def test_what_was_routed_in_training_is_kept(tmp_path: Path) -> None:
    """Three runs over the same windows, which the saturation figures are made from."""
    store = tmp_path / "kept.duckdb"
    store.write_bytes(lzma.decompress((ROOT / "specimens" / "checkpoints" / "mixtral.duckdb.xz").read_bytes()))
    with moescope.open(store) as opened:
        assert opened.rows("select name from runs order by run") == [("step 0024",), ("step 0240",), ("step 0960",)]
        counted = opened.rows(
            "select s.run, count(*), count(distinct router), min(expert), max(expert) from assignments "
            "join tokens using (token) join sequences s using (sequence) group by all order by 1"
        )
    assert [row[1:] for row in counted] == [(counted[0][1], 4, 0, 7)] * 3


def test_folders_and_files_are_small() -> None:
    """At most 20 Python files in a folder, at most 250 lines in a file of the package; tests' files as they are today."""
    files = [ROOT / name for name in tracked() if name.endswith(".py") and name.startswith(("moescope/", "tests/"))]
    folders = Counter(str(file.parent.relative_to(ROOT)) for file in files)
    assert {folder: n for folder, n in folders.items() if n > FILES} == {}, (
        "fold by subject: docs/architecture.md says what each is"
    )
    most = {"moescope": LINES, "tests": LINES_OF_TESTS}
    long = {
        str(f.relative_to(ROOT)): n
        for f in files
        if (n := len(f.read_text().splitlines())) > most[f.relative_to(ROOT).parts[0]]
    }
    assert long == {}, "split along what the file holds"
