"""ESFT: router decisions as released (github.com/deepseek-ai/ESFT), `expert_weights_<layer>.txt[.gz]` per task.

One line per sample, tab-separated: k expert ids per token, one empty cell, k gate weights per token in the same order. No token
can be named (unit `row`); entropy, margin and log-sum-exp are unknown and stay null.
"""

import gzip
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError
from ._core.ask import Ask, Item
from ._core.captured import Array, Captured, Fault
from ._core.model import Model
from ._core.reading import Head

OPTIONS: dict[str, str] = {}
_NAME = re.compile(r"expert_weights_(\d+)\.txt(\.gz)?")
_DEEPSEEK = {"experts": 64, "top_k": 6, "shared": 2, "layers": 27, "family": "deepseek_v2", "score": "softmax"}


def accepts(head: Head) -> bool:
    """A task's folder, or one of tasks."""
    return head.path.is_dir() and bool(_tasks(head.path))


def import_esft(
    folder: str | Path, store: str | Path, name: str | None = None, experts: int = 64, k: int = 6, shared_experts: int = 2
) -> int:
    """Read a task's folder, or a folder of tasks, into `store` as one run; gives its number.

    Each task is a domain, each sample a document. `experts`, `k` and `shared_experts` are DeepSeek-V2-Lite's. Raises InputError
    where the files are missing, disagree with each other, or hold other experts.
    """
    from ._core.door import import_captures

    layers = _layers_of(Path(folder))
    facts = {**_DEEPSEEK, "experts": experts, "top_k": k, "shared": shared_experts, "layers": max(layers) + 1}
    model = Model("ESFT release", routed=tuple(layers), by_weight=True, **facts)  # type: ignore[arg-type]
    return import_captures([folder], store, "esft", model=model, name=name or Path(folder).name).runs[0]


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every sample of every task."""
    layers = _layers_of(path)
    if ask.model is None:
        ask.model = Model("ESFT release", routed=tuple(layers), by_weight=True, **_DEEPSEEK)  # type: ignore[arg-type]
    if list(ask.model.routed) != layers:
        raise InputError(f"{path} has layers {layers[0]} to {layers[-1]}, and {ask.model.name} has {ask.model.said}")
    ask.notes.say("read from released text files: weights are rounded to four places")
    for task, files in _tasks(path).items():
        yield from _samples(task, files, ask.model)


def _layers_of(folder: Path) -> list[int]:
    tasks = _tasks(folder)
    if not tasks:
        raise InputError(
            f"{folder} holds no expert_weights_<layer>.txt or .txt.gz; name an ESFT task's folder, or one of tasks"
        )
    if len({tuple(files) for files in tasks.values()}) > 1:
        raise InputError(f"the tasks in {folder} have different layers ({', '.join(tasks)}); import them one by one")
    return list(next(iter(tasks.values())))


def _tasks(folder: Path) -> dict[str, dict[int, Path]]:
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {path.name: files for path in [folder, *inner] if (files := _files(path))}


def _files(folder: Path) -> dict[int, Path]:
    """Files by layer."""
    if not folder.is_dir():
        return {}
    found = {int(m[1]): path for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _samples(task: str, files: dict[int, Path], model: Model) -> Iterator[Item]:
    """Samples of a task, all layers side by side."""
    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(path)) for path in files.values()]
        row = 0
        while any(lines := [file.readline() for file in opened]):
            pairs = [_numbers(line, row + 1, path, model) for line, path in zip(lines, files.values())]
            if len({len(ids) for ids, _ in pairs}) > 1:
                other = next(p for p, (ids, _) in zip(files.values(), pairs) if len(ids) != len(pairs[0][0]))
                raise InputError(f"{other} has other samples or lengths than the first layer of {task}; fetch the files again")
            experts, weights = (np.stack(parts, axis=1) for parts in zip(*pairs))
            where = f"sample {row} of {task}"
            yield Captured(
                where, task, row, experts, len(experts), len(experts), weights=weights, by_weight=True, labels={"domain": task},
                named=False, document=f"{task} {row}",
            )  # fmt: skip
            row += 1


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()  # type: ignore[return-value]


def _numbers(line: str, number: int, path: Path, model: Model) -> tuple[Array, Array]:
    """(tokens, k) expert ids and gate weights of a line. Fault where it is none."""
    ids, _, weights = line.rstrip("\n").partition("\t\t")
    try:
        pair = _cells(ids, model.top_k).astype(np.int64), _cells(weights, model.top_k).astype(np.float32)
    except ValueError as error:
        k = model.top_k
        raise Fault(f"line {number} of {path} is not {k} ids per token, an empty cell and as many weights") from error
    if pair[0].shape != pair[1].shape or pair[0].min() < 0 or pair[0].max() >= model.experts:
        raise Fault(f"line {number} of {path} holds other than {model.experts} experts, or not one weight per id")
    return pair


def _cells(text: str, k: int) -> np.ndarray[Any, Any]:
    """(tokens, k) numbers of a tab-separated line; ValueError if it holds anything else."""
    values = np.fromstring(text, sep="\t")
    if len(values) != text.count("\t") + 1:
        raise ValueError(text[:40])
    return values.reshape(-1, k)
