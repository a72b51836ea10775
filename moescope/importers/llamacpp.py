"""llama.cpp: CSV of `layer,expert` (one line an assignment) or `layer,expert,count`. It names no token: counts only."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..foreign import one_line
from ._core.ask import Ask, Item, tried
from ._core.captured import Counts, Fault
from ._core.reading import Head

OPTIONS: dict[str, str] = {}
_COUNT = ("count", "n")
_MOST = 1 << 53  # of one line


def accepts(head: Head) -> bool:
    """By its first line."""
    return head.start.replace(b" ", b"").split(b"\n")[0].strip() in (b"layer,expert", b"layer,expert,count", b"layer,expert,n")


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """The counts of a file, added up."""
    yield from tried(partial(_counts, path, ask))


def _counts(path: Path, ask: Ask) -> Counts:
    import pyarrow as pa
    from pyarrow import csv

    model = ask.need("a CSV of llama.cpp")
    total = np.zeros((model.layers, model.experts), np.int64)
    options = csv.ConvertOptions(column_types={name: pa.int64() for name in ("layer", "expert", *_COUNT)})
    try:
        for batch in csv.open_csv(path, csv.ReadOptions(use_threads=False), convert_options=options):
            names = [name.strip() for name in batch.schema.names]
            if not {"layer", "expert"} <= set(names) or any(column.null_count for column in batch.columns):
                raise Fault(
                    f"{path.name} has no whole numbers in columns layer and expert in every line: it was cut, or is none"
                )
            columns = {name: np.asarray(column) for name, column in zip(names, batch.columns)}
            layer, expert = columns["layer"], columns["expert"]
            if not ((layer >= 0) & (layer < model.layers) & (expert >= 0) & (expert < model.experts)).all():
                raise Fault(f"{path.name} has layer {layer.max()} and expert {expert.max()}, and {model.name} has {model.said}")
            n = next((columns[name] for name in _COUNT if name in columns), np.ones(len(layer), np.int64))
            if len(n) and not 0 <= n.min() <= n.max() <= _MOST:
                raise Fault(
                    f"{path.name} counts {n.min() if n.min() < 0 else n.max()} assignments, which is no count; correct it"
                )
            np.add.at(total, (layer, expert), n)
            ask.step(batch.nbytes)
    except (pa.ArrowException, OSError) as error:
        raise Fault(f"{path.name} is no CSV of layer and expert ({one_line(str(error), 120)})") from error
    layer, expert = np.nonzero(total)
    if other := sorted(set(layer.tolist()) - set(model.routed)):
        raise Fault(f"{path.name} counts experts in layer {other[0]}, which has no router in {model.name}")
    ask.model = replace(model, routed=tuple(i for i in model.routed if i in set(layer.tolist())) or model.routed)
    return Counts(path.name, layer, expert, total[layer, expert])
