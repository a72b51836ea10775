"""A store written by the tracer itself, with every kind of run that the dashboard shows: what synthetic stores only imitate.

python tests/real.py STORE
"""

import os
import subprocess
import sys
from pathlib import Path

MEASURED, SEQUENCES, IMAGES, JETMOE, UNTRAINED, RECURSIVE, OTHER, CUT = range(8)  # the runs, by number
COMMANDS = (
    "trace mixtral --data text --limit 6 --measure importance --measure dimensionality --logits 1 --predictions",
    "trace switch --data text --limit 3 --generate 4",
    "trace vmoe --data fashion-mnist --limit 16 --logits 0.5",
    "ablate mixtral --experts 2:0,3 --sweep --by domain --controls 1 --run 0",
)


def made(path: Path) -> Path:
    """The store, made by a process of its own: this one stays free of torch."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, __file__, str(path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return path


def make(path: Path) -> None:
    """Three shipped models and an ablation by their commands; a layer with two routers; a model untrained; a run cut off."""
    import torch
    from small import hrm, ids

    import moescope
    from moescope.cli import main
    from moescope.models import tiny
    from moescope.models.loading import load

    torch.set_num_threads(1)
    for command in COMMANDS:
        main([*command.split(), "--store", str(path), "--quiet"], standalone_mode=False)
    built = tiny.build("jetmoe")
    with torch.no_grad(), moescope.Tracer(built.model, path, name="jetmoe", inputs=built.inputs):
        built.model(**built.inputs)
    loaded = load("mixtral")
    for parameter in loaded.model.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if parameter.dim() > 1 else None
    moescope.trace(loaded, "text", path, limit=6, name="untrained", activations=["dimensionality"])
    for seed in (0, 1):
        model, x = hrm(seed), ids(40, 12)
        with torch.no_grad(), moescope.Tracer(model, path, name=f"HRM {seed}", activations=["dimensionality"]):
            model(x)
    try:
        moescope.trace("mixtral", "text", path, limit=6, batch_size=2, name="cut off", report=_stop)
    except KeyboardInterrupt:
        return


def _stop(progress: object) -> None:
    if isinstance(progress, dict) and progress["batches"] == 2:
        raise KeyboardInterrupt


if __name__ == "__main__":
    make(Path(sys.argv[1]))
