"""How long does a newcomer take from a clone to a first finding? python -m benchmarks.newcomer

Follows the README to the letter in an empty folder with an environment of its own: clone, `make setup` (twice: the first
brings the packages, the second, from pip's own cache, is counted), `make demo`, and the first question asked of its store.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASKED = [".venv/bin/moescope", "analyze", "specialization", "demo.duckdb"]


def main() -> None:
    """Say the seconds of every step."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "moescope"
        steps = {"git clone": _timed(["git", "clone", "--quiet", str(ROOT), str(there)], Path(folder))}
        brought = _timed(["make", "--silent", "setup"], there)
        shutil.rmtree(there / ".venv")
        steps |= {"make setup, packages at hand": _timed(["make", "--silent", "setup"], there)}
        steps |= {"make demo": _timed(["make", "--silent", "demo"], there)}
        steps |= {" ".join(["moescope", *ASKED[1:]]): _timed(ASKED, there)}
    print(f"{brought:7.1f} s  make setup, which brings the packages (not counted)")
    for name, seconds in steps.items():
        print(f"{seconds:7.1f} s  {name}")
    print(f"{sum(steps.values()):7.1f} s  from clone to first finding")


def _timed(command: list[str], where: Path) -> float:
    begun = time.perf_counter()
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL, env=own)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
