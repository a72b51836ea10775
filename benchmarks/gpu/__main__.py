"""`python -m benchmarks.gpu [--rehearse] [--only SECTION] [--out FILE]`; see the package."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import machine

SECTIONS = {"checks": 100.0, "graphs": 70.0, "specimens": 50.0, "offload": 60.0, "speed": 160.0}  # seconds each may take
RESULTS = Path(__file__).with_name("results.json")
_ENDING = 5.0  # seconds a section has to stop by itself before it is stopped


def main() -> int:
    """Run every section in a process of its own; write the JSON after each; print the table last."""
    asked = _arguments()
    if asked.section:
        return _section(asked)
    began, about = time.time(), machine()
    rehearsed = asked.rehearse or about["gpu"] == "none"
    out = asked.out or (RESULTS.with_name("rehearsal.json") if rehearsed else RESULTS)
    print(json.dumps(about), flush=True)
    found: dict[str, Any] = {**about, "rehearsal": rehearsed, "date": time.strftime("%Y-%m-%d"), "sections": {}}
    for name in asked.only or SECTIONS:
        found["sections"][name] = _apart(name, rehearsed, asked.few)
        found["seconds"] = round(time.time() - began, 1)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return int(any(row["good"] is False for part in found["sections"].values() for row in part["rows"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU; by itself where there is no GPU")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument("--few", action="store_true", help="as few cases as show that all runs")
    parser.add_argument("--out", type=Path, help="default: results.json beside this file; of a rehearsal rehearsal.json")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _apart(name: str, rehearsed: bool, few: bool) -> dict[str, Any]:
    """A section's rows, its seconds and how it ended."""
    from benchmarks.gpu.here import read

    print(f"\n== {name}, at most {SECTIONS[name]:.0f} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        call = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--rows", str(file)]
        call += ["--rehearse"] * rehearsed + ["--few"] * few
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        try:
            ended = subprocess.run(call, env=environment, timeout=SECTIONS[name]).returncode
            said = "complete" if ended == 0 else f"ended with {ended}"
        except subprocess.TimeoutExpired:
            said = f"stopped after {SECTIONS[name]:.0f} s"
        rows = [row.__dict__ for row in read(file)]
    if said != "complete":
        rows.append({"what": f"{name}: {said}", "value": "", "unit": "", "spread": None, "good": False})
    return {"ended": said, "seconds": round(time.monotonic() - began, 1), "rows": rows}


def _section(asked: argparse.Namespace) -> int:
    import torch

    from benchmarks.gpu.here import Here, write

    began = time.monotonic()
    device = torch.device("cpu") if asked.rehearse else torch.device("cuda", 0)
    if device.type == "cpu":
        torch.set_num_threads(1)
    here = Here(device, asked.rehearse, began + SECTIONS[asked.section] - _ENDING, asked.few)
    for row in importlib.import_module(f"benchmarks.gpu.{asked.section}").rows(here):
        write(row, asked.rows)
    return 0


def table(found: dict[str, Any]) -> str:
    """Everything that was found, for a person. `+` a check that passed, `!` one that did not."""
    from benchmarks.gpu.here import Row

    kind = "REHEARSAL on a CPU, no figure of a GPU" if found["rehearsal"] else found["gpu"]
    lines = ["", f"benchmarks.gpu: {kind}; {found['system']}; {found.get('seconds', 0):.0f} s in all"]
    for name, part in found["sections"].items():
        lines += ["", f"-- {name}: {part['ended']}, {part['seconds']:.0f} s"]
        lines += [Row(**row).line() for row in part["rows"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
