"""Gather what a bare machine with a GPU and no network needs to run benchmarks.gpu: python -m benchmarks.gpu_pack DEST

DEST gets the code (nothing that git ignores), the two shipped models that are traced there, wheels of what such a machine
lacks, and `run.sh`, which installs them into a folder of their own and runs. Refused above LIMIT in all.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 64  # MiB
WHEELS = ("duckdb", "transformers", "rich")  # at the versions of constraints.txt; the rest is there
TAKEN = (
    "moescope/",
    "benchmarks/",
    "tests/oracles/",
    "tests/common/",
    "datasets/",
    "pyproject.toml",
    "constraints.txt",
    "LICENSE",
)
LEFT = (
    "moescope/models/specimens/mixtral/", "moescope/models/specimens/switch-collapsed/", "moescope/models/zoo/weights/",
    "moescope/app/", "benchmarks/gpu/results.json",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RUN = """#!/bin/sh
# Install the wheels beside this file into a folder of their own, run benchmarks.gpu, and leave gpu.json in $OUT (else here).
here=$(cd "$(dirname "$0")" && pwd)
site=${TMPDIR:-/tmp}/moescope-gpu-site
${PYTHON:-python3} -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$here"/wheels/*.whl || exit
cd "$here" && PYTHONPATH="$site:$here" ${PYTHON:-python3} -m benchmarks.gpu --out "${OUT:-$here}/gpu.json" "$@"
"""


def main() -> int:
    """Pack, say what it weighs, and refuse what is too heavy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dest", type=Path, help="a folder that is not there yet, or an empty one")
    parser.add_argument("--python", default="3.12", help="of the machine")
    asked = parser.parse_args()
    if asked.dest.exists() and any(asked.dest.iterdir()):
        print(f"{asked.dest} is not empty: name a folder that is not there yet", file=sys.stderr)
        return 2
    code(asked.dest)
    download(asked.dest / "wheels", asked.python)
    (asked.dest / "run.sh").write_text(RUN, encoding="utf-8")
    sizes = {part.name: mebibytes(part) for part in sorted(asked.dest.iterdir())}
    print("\n".join(f"{name:16} {size:6.2f} MiB" for name, size in sizes.items()))
    total = sum(sizes.values())
    print(f"{'in all':16} {total:6.2f} MiB of {LIMIT}; there: sh {asked.dest.name}/run.sh")
    if total > LIMIT:
        shutil.rmtree(asked.dest)
        print(f"{total:.1f} MiB are more than the {LIMIT} that may travel: nothing is packed; leave more out", file=sys.stderr)
        return 1
    return 0


def code(dest: Path) -> None:
    """Copy the files that take part, committed or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if name.startswith(TAKEN) and not name.startswith(LEFT) and (ROOT / name).exists():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, dest / name)


def pinned() -> list[str]:
    """The wheels with the versions that everything here is tested with."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split() if "==" in line)
    return [f"{name}=={pins[name]}" for name in WHEELS]


def download(folder: Path, python: str) -> None:
    """Fetch them for that Python on x86-64."""
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    options += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", *options, "-d", str(folder), *pinned()], check=True)


def mebibytes(path: Path) -> float:
    """Of a file, or of all in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / (1 << 20)


if __name__ == "__main__":
    sys.exit(main())
