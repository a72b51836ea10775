"""Ask every analysis about worlds without structure, and name plants in others; keep what came out.

PYTHONPATH=tests/builders/stores python -m benchmarks.calibration [--worlds 200] [--seconds N] [--processes 1] [NAME ...]

One more world of every kind is made and asked until there are `--worlds` of each or `--seconds` have passed: the table says how
many there were. Results are kept in results.json after every world, and the next run goes on from there; delete it to begin
anew. `python -m benchmarks.calibration.table` writes docs/calibration.md from it, `make fill-docs` the block in README.md.
"""

import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import worlds

from benchmarks.calibration import power, power_stores
from benchmarks.calibration.asked import ask, claims, covered
from benchmarks.calibration.kept import ASKED, OPTIONS, PAIRS, add, asked, keep, kept
from moescope.store import open_store


def one(kind: str, seed: int, names: tuple[str, ...]) -> dict[str, Any]:
    """{analysis: (figures claimed, {figure: (hits, intervals)})} of one world."""
    size = worlds.SIZES[seed % len(worlds.SIZES)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.duckdb"
        own = [*ASKED].index(kind) * 10_000 + seed  # worlds of two kinds share nothing
        _make(path, kind, own, size, names)
        with open_store(path) as store:
            for name in names:
                answer = ask(store, name, **OPTIONS.get(name, {}))
                found[name] = (
                    ([], {}) if answer is None else (sorted(set(claims(answer, kind))), covered(answer, kind, size[0]))
                )
    return found


def _make(path: Path, kind: str, seed: int, size: tuple[int, int], names: tuple[str, ...]) -> None:
    """The store of a world, with what the analyses need."""
    if kind in worlds.TOLD:
        worlds.make_told(path, worlds.TOLD[kind], seed, size)
        return
    for again in range(1 + bool({*names} & {*PAIRS})):
        worlds.make(path, worlds.WORLDS[kind], seed, size, logits="dimensionality" in names, again=again)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--worlds", "most", default=200, show_default=True, help="Of every kind.")
@click.option("--seconds", default=float("inf"), help="Begin no world after so many.")
@click.option("--processes", default=1, show_default=True)
@click.option("--only", multiple=True, help="Kinds of worlds; all without.")
def main(names: tuple[str, ...], most: int, seconds: float, processes: int, only: tuple[str, ...]) -> None:
    """Ask, keep, print."""
    found = kept()
    waiting, jobs = deque[Any](), _jobs(found, names, most, only)
    end = time.monotonic() + seconds
    with ProcessPoolExecutor(processes) as pool:
        while True:
            for kind, seed, missing in islice(jobs if time.monotonic() < end else (), 2 * processes - len(waiting)):
                waiting.append((kind, seed, pool.submit(one, kind, seed, missing)))
            if not waiting:
                break
            kind, seed, job = waiting.popleft()  # in their order, so that what is kept can be gone on from
            for name, (said, hits) in job.result().items():
                add(found, kind, name, said, hits)
                if said:
                    print(kind, seed, name, said[:4], flush=True)
            keep(found)
    if time.monotonic() < end and (not names or "power" in names):
        powers(found)


def powers(found: dict[str, Any]) -> None:
    """Curves of power that are not kept yet."""
    curves: dict[str, Any] = {case: partial(power.curve, **options) for case, options in power.CASES.items()}
    curves |= {case: partial(power_stores.curve, case) for case in power_stores.CASES}
    for case, make in curves.items():
        if case not in found["power"]:
            found["power"][case] = make()
            keep(found)
            print(case, found["power"][case], flush=True)


def _jobs(
    found: dict[str, Any], names: tuple[str, ...], most: int, only: tuple[str, ...]
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Kind, seed, and the analyses that were not asked yet, a world of every kind after the other."""
    before = {kind: {name: asked(found, kind, name) for name in ASKED[kind]} for kind in only or ASKED}
    for seed in range(most):
        for kind, counted in before.items():
            missing = tuple(n for n, many in counted.items() if many <= seed and (not names or n in names))
            if missing:
                yield kind, seed, missing


if __name__ == "__main__":
    main()
