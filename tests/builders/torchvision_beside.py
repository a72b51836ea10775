"""torchvision, which most processors need, beside the environment: its own build of operators wants a GPU's libraries.

`make` lays the package into .venv/torchvision. Only its resizing and normalizing are used, which are written in Python over
torch; the two operators that it describes while it is imported are declared, so that it can be.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOME = Path(sys.prefix) / "torchvision"
_declared: list[Any] = []


def importable() -> bool:
    """Make torchvision importable in this process; False where it is not there. Before Transformers is imported."""
    if find_spec("torchvision") is None:
        if not HOME.is_dir():
            return False
        sys.path.append(str(HOME))
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:  # a build with operators of its own
            continue
    _declared.append(library)  # else the declarations go with it
    return True
