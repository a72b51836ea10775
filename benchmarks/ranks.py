"""Every family, tiny, run by two processes and by one: are the same decisions kept?

`torchrun --nproc-per-node 2 -m benchmarks.ranks [FAMILY ...]`; all without names. A line for each: what became of it under
tensor and under expert parallelism. About six minutes of two cores.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers.distributed import DistributedConfig
from transformers.utils import logging

import moescope
from moescope.models import tiny
from moescope.models.tiny.model_types import model_class

KINDS: dict[str, dict[str, Any]] = {"tensor": {"tp_plan": "auto"}, "expert": {"tp_plan": "auto", "ep_size": 2}}
ROWS = """select r.name, f.forward - min(f.forward) over (), a.token - min(a.token) over (), slot, expert, weight
    from assignments a join routers r using (router) join forwards f using (forward) where r.run = ? order by all"""


def main() -> None:
    """One family after the other, in both processes."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    logging.set_verbosity_error()
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    home = [tempfile.mkdtemp(prefix="moescope-ranks-") if distributed.get_rank() == 0 else ""]
    distributed.broadcast_object_list(home)
    for family in sys.argv[1:] or tiny.names():
        found = {kind: outcome(family, kind, Path(home[0])) for kind in KINDS}
        if distributed.get_rank() == 0:
            print(f"{family:28} " + "; ".join(f"{kind}: {said}" for kind, said in found.items()), flush=True)
    distributed.barrier()
    if distributed.get_rank() == 0:
        shutil.rmtree(home[0], ignore_errors=True)
    distributed.destroy_process_group()


def outcome(family: str, kind: str, home: Path) -> str:
    """What became of one family spread one way; the first process's word."""
    built: Any = tiny.build(family)
    if distributed.get_rank() == 0:
        built.model.save_pretrained(home / family)
    distributed.barrier()
    asked, store = DistributedConfig(tp_size=2, **KINDS[kind]), home / f"{family}-{kind}.duckdb"
    made: dict[str, Any] = {}

    def load() -> None:
        made["model"] = model_class(family).from_pretrained(home / family, distributed_config=asked, dtype=torch.float32).eval()

    def trace() -> None:
        with moescope.Tracer(made["model"], store, inputs=built.inputs):
            made["model"](**built.inputs)

    steps = {"loads it": load, "runs it": lambda: made["model"](**built.inputs)}
    for what, step in steps.items():
        if (error := together(step)) is not None:
            return f"Transformers never {what} ({error[:90]})"
    if (error := together(trace)) is not None:
        return f"REFUSED ({error[:200]})"
    return compared(built, store) if distributed.get_rank() == 0 else ""


def together(step: Callable[[], object]) -> str | None:
    """Do it in both processes; what was raised in one of them."""
    said: str | None = None
    try:
        step()
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    everywhere: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, said)
    return next((one for one in everywhere if one is not None), None)


def compared(built: Any, store: Path) -> str:
    """The run in the store against one of this process alone."""
    with moescope.Tracer(built.model, store, inputs=built.inputs):
        built.model(**built.inputs)
    with moescope.open(store) as opened:
        theirs, alone = (opened.rows(ROWS, [run]) for run in (0, 1))
    other = sum(a[:-1] != b[:-1] for a, b in zip(theirs, alone)) + abs(len(theirs) - len(alone))
    weights = max(abs(a[-1] - b[-1]) for a, b in zip(theirs, alone))
    return f"{'DIFFERENT' if other else 'same'} ({other} of {len(alone)} assignments differ, weights by {weights:.0e})"


if __name__ == "__main__":
    main()
