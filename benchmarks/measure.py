"""CPU time, memory and ratios: what the machines of others do to wall time does not reach these."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Spent:
    """CPU seconds (all threads) and wall seconds of a block."""

    cpu: float = 0.0
    wall: float = 0.0


def device() -> str:
    """Where models of the benchmarks run: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def spent() -> Iterator[Spent]:
    """Measure a block; on a GPU from and to the end of what it does."""
    found = Spent()
    wait = torch.cuda.synchronize if device() == "cuda" else lambda: None
    wait()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield found
    finally:
        wait()
        found.cpu, found.wall = time.process_time() - cpu, time.perf_counter() - wall


def resident() -> int:
    """Bytes of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Ratios:
    """Paired ratios of CPU time (on a GPU: wall time) to a base, round by round, in shuffled order."""

    base: str
    times: dict[str, list[float]] = field(default_factory=dict)

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """{variant: (median ratio, quartile, quartile)}."""
        found = {}
        for name, values in self.times.items():
            ratios = sorted(v / b for v, b in zip(values, self.times[self.base]))
            quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
            found[name] = (statistics.median(ratios), quartiles[0], quartiles[2])
        return found


def paired(
    variants: dict[str, Callable[[], object]], rounds: int, base: str, seed: int = 0, seconds: float = float("inf")
) -> Ratios:
    """Run every variant once per round in random order, after one round of warming up; no round begins after so many seconds,
    but for the first three."""
    import random

    order, began = random.Random(seed), time.monotonic()
    result = Ratios(base, {name: [] for name in variants})
    for number in range(rounds + 1):
        if number > 3 and time.monotonic() - began > seconds:
            break
        names = list(variants)
        order.shuffle(names)
        for name in names:
            with spent() as s:
                variants[name]()
            if number:
                result.times[name].append(s.cpu if device() == "cpu" else s.wall)
    return result
