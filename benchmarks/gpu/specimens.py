"""V-MoE and Switch as shipped, traced on the device and on the CPU: the same experts for the same tokens?"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

import moescope
from benchmarks.gpu.here import Here, Row, guarded

CASES = {"vmoe": ("fashion-mnist", 96), "switch": ("text", 40)}
_ALL = """select forward, router, token, slot, expert, dropped, weight from assignments order by forward, router, token, slot"""


def rows(here: Here) -> Iterator[Row]:
    """A row for each specimen."""
    torch.set_grad_enabled(False)
    torch.backends.cudnn.allow_tf32 = False
    for name, (data, limit) in CASES.items():
        few = limit // 10 if here.small else limit
        yield guarded(f"{name} over {few} of {data}, float32: as on the CPU", partial(alike, name, data, few, here))


def alike(name: str, data: str, limit: int, here: Here) -> str:
    """Compare two traces assignment by assignment. Only rounding may tell them apart: neighbours in weight, and few."""
    with tempfile.TemporaryDirectory() as folder:
        stored = []
        for device in ("cpu", str(here.device)):
            store = Path(folder) / f"{device.replace(':', '')}-{len(stored)}.duckdb"
            moescope.trace(
                name, data, store, limit=limit, device=device, dtype="float32", max_length=None if name == "vmoe" else 128
            )
            with moescope.open(store) as opened:
                stored.append(opened.rows(_ALL))
    theirs, ours = stored
    if [r[:4] for r in theirs] != [r[:4] for r in ours]:
        raise AssertionError(f"{len(theirs)} assignments on the CPU, {len(ours)} here, or of other tokens")
    other = [(a, b) for a, b in zip(theirs, ours) if a[4:6] != b[4:6]]
    apart = max((abs(a[6] - b[6]) for a, b in other), default=0.0)
    if len(other) > len(ours) / 1000 or apart > 1e-3:
        raise AssertionError(f"{len(other)} of {len(ours):,} assignments differ, by weights {apart:.1e} apart")
    weights = max(abs(a[6] - b[6]) for a, b in zip(theirs, ours))
    return (
        f"{len(ours):,} assignments, {len(other)} differ (weights {apart:.0e} apart); weights differ by at most {weights:.1e}"
    )
