"""Router inputs: what does a router of the run's model take, token by token?

Written into the npz file `path`, for `moescope analyze features` and for other tools: `features` (tokens, H) float32, the
states that the router of `layer` takes, `token` (tokens,), their keys in the store, and `layer`. Nothing is measured, so that
nothing has a null. `tokens`: about how many, whole forwards at a time. An existing file is not written over.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from ...analyses._shared.verdicts.columns import COLUMNS
from ...errors import InputError, ModelError
from ...words import Count
from ._setting import Found, Setting

ANALYSIS = "features"


def run(here: Setting, path: str, layer: int, tokens: Count = 20_000) -> Found:
    """Of the router of the decoder's `layer`."""
    file = Path(path)
    if file.exists() or file.suffix != ".npz" or not file.parent.is_dir():
        raise InputError(f"router inputs go into a new .npz file in a folder that is there, not {path}; name another one")
    site = here.routers(layer)[0]
    if site.router is None:
        raise ModelError(f"layer {layer} decides without a module of its own, so what it takes cannot be seen")
    batches, states, keys = here.batches(), [], []
    for batch in here.each(batches):
        heard: list[Tensor] = []
        handle = site.router.register_forward_pre_hook(lambda _, args, heard=heard: heard.append(args[0].detach()))
        try:
            here.calls(batch, [])
        finally:
            handle.remove()
        key = batch.keys["decoder"]
        rows = heard[0].float().flatten(0, -2).cpu().numpy()
        if len(rows) != len(key):
            raise ModelError(
                f"the router of layer {layer} takes {len(rows)} rows of {len(key)} tokens; which is which is not known"
            )
        states.append(rows[key >= 0])
        keys.append(key[key >= 0])
        if sum(map(len, keys)) >= tokens:
            break
    made = {"features": np.concatenate(states).astype(np.float32), "token": np.concatenate(keys), "layer": np.array(layer)}
    np.savez(file, **made)  # type: ignore[arg-type]
    said = f"{len(made['token'])} tokens of {made['features'].shape[1]} features are in {path}"
    return Found(pd.DataFrame(columns=COLUMNS), said=said)
