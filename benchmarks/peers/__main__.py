"""`make bench-peers`: whose expert counts are right on ten families, and what each tool costs; benchmarks/peers/peers.json.

    python -m benchmarks.peers [--install DIR] [--rounds 30] [--only right|cost]

The peers are optional. `--install DIR` puts those that are missing, by their package names, into a folder of its own (never
into this environment); what cannot be installed, imported or run is said plainly, in the table too.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.tools import PEERS, TOOLS, install, missing

RESULTS = Path(__file__).with_name("peers.json")


def asked(absent: dict[str, str]) -> list[str]:
    """The tools whose counts can be compared here."""
    return [tool for tool in TOOLS if tool not in absent and _version(tool)]


def about(absent: dict[str, str]) -> dict[str, Any]:
    """Date, machine, load, versions; what could not be asked, and why."""
    names = ["moescope", "torch", "transformers", "nnsight", "transformer-lens", *PEERS]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": {name: found for name in names if (found := _version(name))},
        "not_asked": absent,
    }


def _version(name: str) -> str:
    try:
        return version({"TransformerLens": "transformer-lens"}.get(name, name))
    except PackageNotFoundError:
        return ""


def show_right(rows: list[dict[str, Any]]) -> None:
    """The table of families, for the terminal."""
    for row in rows:
        print(row["family"])
        for tool, cell in row["cells"].items():
            print(f"    {tool:16} {cell}")


def show_cost(rows: list[dict[str, Any]]) -> None:
    """The table of costs, for the terminal."""
    for row in rows:
        median, low, high = row["ratio"]
        size = ", ".join(f"{value:.1f} B ({where})" for where, value in (row["bytes_per_decision"] or {}).items())
        print(f"{row['tool']:24} {median:6.3f} × [{low:.3f} … {high:.3f}]  {row['keeps']}; {size}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", choices=["right", "cost"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.install is not None:
        install(chosen.install)
    absent = missing()
    for name, why in absent.items():
        print(f"{name} is not asked: {why}")
    report = about(absent) | {k: _before().get(k, []) for k in ("right", "cost")}
    if chosen.only != "cost":
        from benchmarks.peers.right import conformance

        report["right"] = conformance(asked(absent))
        show_right(report["right"])
    if chosen.only != "right":
        from benchmarks.peers.cost import costs

        report["cost"] = costs(chosen.rounds, [name for name in PEERS if name not in absent])
        show_cost(report["cost"])
    RESULTS.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _before() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


if __name__ == "__main__":
    main()
