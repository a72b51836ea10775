"""Ask every analysis about worlds without structure, and name plants in others; keep what came out.

PYTHONPATH=tests/builders python -m benchmarks.calibration [--worlds 200] [--seconds N] [--processes 1] [NAME ...]

One more world of every kind is made and asked until there are `--worlds` of each or `--seconds` have passed: the table says how
many there were. Results are kept in results.json after every round, and the next run goes on from there; delete it to begin
anew. `python -m benchmarks.calibration.table` writes docs/calibration.md from it, `make docs` the block in README.md.
"""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import worlds

from benchmarks.calibration import power
from benchmarks.calibration.asked import ask, claims, covered
from benchmarks.calibration.kept import ASKED, OPTIONS, add, asked, keep, kept
from moescope.store import open_store


def one(kind: str, seed: int, names: tuple[str, ...]) -> dict[str, Any]:
    """{analysis: (figures claimed, {figure: (hits, intervals)})} of one world."""
    size = worlds.SIZES[seed % len(worlds.SIZES)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.duckdb"
        own = [*ASKED].index(kind) * 10_000 + seed  # worlds of two kinds share nothing
        worlds.make(path, worlds.WORLDS[kind], own, size, logits="dimensionality" in names)
        with open_store(path) as store:
            for name in names:
                answer = ask(store, name, **OPTIONS.get(name, {}))
                found[name] = (
                    ([], {}) if answer is None else (sorted(set(claims(answer, kind))), covered(answer, kind, size[0]))
                )
    return found


@click.command()
@click.argument("names", nargs=-1)
@click.option("--worlds", "most", default=200, show_default=True, help="Of every kind.")
@click.option("--seconds", default=float("inf"), help="Begin no world after so many.")
@click.option("--processes", default=1, show_default=True)
@click.option("--only", multiple=True, help="Kinds of worlds; all without.")
def main(names: tuple[str, ...], most: int, seconds: float, processes: int, only: tuple[str, ...]) -> None:
    """Ask, keep, print."""
    until, found = time.monotonic() + seconds, kept()
    if not names or "power" in names:
        found["power"] = power.curves()
        keep(found)
    with ProcessPoolExecutor(processes) as pool:
        for seed in range(most):
            jobs = {
                kind: pool.submit(one, kind, seed, missing) for kind in only or ASKED
                if (missing := tuple(n for n in ASKED[kind] if asked(found, kind, n) == seed and (not names or n in names)))
            }  # fmt: skip
            for kind, job in jobs.items():
                for name, (said, hits) in job.result().items():
                    add(found, kind, name, said, hits)
                    if said:
                        print(kind, seed, name, said[:4], flush=True)
            keep(found)
            if time.monotonic() > until:
                break


if __name__ == "__main__":
    main()
