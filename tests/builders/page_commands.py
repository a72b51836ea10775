"""Commands of docs/scale.md, run with the shipped model and few texts in place of what a reader has."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from places import ROOT
from scale import PATIENCE

THEIRS = {
    "./my-model": "mixtral",
    "corpus.jsonl": "text --limit 8 --threads 1 --quiet",
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--workers 4": "--workers 2",
    "--workers 16": "--workers 2",
    "torchrun": f"{sys.executable} -m torch.distributed.run",
}
SRUN = """#!/bin/bash
# two tasks of: srun --ntasks N --gpus-per-task N COMMAND
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "${@:5}" & tasks+=($!); done
for task in ${tasks[@]}; do wait $task || exit 1; done
"""


def commands(*words: str) -> list[str]:
    """Blocks of the page that have one of these words: lines that go on put together, comments left out."""
    blocks = (ROOT / "docs" / "scale.md").read_text("utf-8").split("```")[1::2]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if any(word in line for word in words)]


def run(lines: list[str], folder: Path, changed: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> str:
    """What they print, one after the other in one shell that ends at the first that fails."""
    text = "\n".join(lines)
    for word, ours in (THEIRS | {"/shared/": f"{folder}/"} | dict(changed)).items():
        text = text.replace(word, ours)
    programs = {"moescope": f'#!/bin/bash\nexec {sys.executable} -m moescope "$@"\n', "srun": SRUN}
    (folder / "bin").mkdir(exist_ok=True)
    for name, script in programs.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    own = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = ["bash", "-e", "-c", text]
    done = subprocess.run(call, cwd=folder, env={**environment, **own}, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
