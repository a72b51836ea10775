"""Router decisions as released with ESFT (github.com/deepseek-ai/ESFT): `expert_weights_<layer>.txt[.gz]` per task.

One line per sample, tab-separated: k expert ids per token, one empty cell, k gate weights per token in the same order. No token
can be named (unit `row`); entropy, margin and log-sum-exp are unknown and stay null.
"""

import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..store.write.writer import RunWriter

Array = np.ndarray[Any, Any]
_NAME = re.compile(r"expert_weights_(\d+)\.txt(\.gz)?")


def import_esft(
    folder: str | Path, store: str | Path, name: str | None = None, experts: int = 64, k: int = 6, shared_experts: int = 2
) -> int:
    """Read a task's folder, or a folder of tasks, into `store` as one run; gives its number.

    Each task is a domain, each sample a document. `experts`, `k` and `shared_experts` are DeepSeek-V2-Lite's. Raises InputError
    where the files are missing, disagree with each other, or hold other experts.
    """
    folder = Path(folder)
    tasks = {path.name: files for path in [folder, *_folders(folder)] if (files := _layers(path))}
    if not tasks:
        raise InputError(
            f"{folder} holds no expert_weights_<layer>.txt or .txt.gz; name an ESFT task's folder, or one of tasks"
        )
    if len({tuple(files) for files in tasks.values()}) > 1:
        raise InputError(f"the tasks in {folder} have different layers ({', '.join(tasks)}); import them one by one")
    layers = list(next(iter(tasks.values())))
    writer = RunWriter.create(store, _head(name or folder.name, layers, experts, k, shared_experts))
    try:
        for task, files in tasks.items():
            _task(writer, task, files, experts, k)
            writer.commit({"tasks": task})
        return writer.close({"status": "complete", "finished": datetime.now(UTC).replace(tzinfo=None)}, {"tasks": list(tasks)})
    except InputError:
        writer.discard()
        raise


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _layers(folder: Path) -> dict[int, Path]:
    """Files by layer."""
    if not folder.is_dir():
        return {}
    found = {int(m[1]): path for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _head(name: str, layers: list[int], experts: int, k: int, shared: int) -> dict[str, Any]:
    router = {
        "stack": "decoder",
        "block_type": "ffn",
        "contract": "imported",
        "kind": "token_choice",
        "experts": experts,
        "top_k": k,
    }
    router |= {"shared_experts": shared, "score": "softmax", "weight_on": "output"}
    model = {"name": "ESFT release", "family": "deepseek_v2", "weights_sha256": "unknown", "code": "deepseek-ai/ESFT"}
    warning = "imported from released text files: weights are rounded to four places, and nothing could be proved"
    return {
        "run": {"name": name, "started": datetime.now(UTC).replace(tzinfo=None), "dataset": name, "warnings": [warning]},
        "model": model,
        "routers": [
            {"router": i, "name": f"model.layers.{layer}.mlp.gate", "layer": layer, **router} for i, layer in enumerate(layers)
        ],
        "experts": [{"router": i, "expert": e, "role": "routed"} for i in range(len(layers)) for e in range(experts)],
    }


def _task(writer: RunWriter, task: str, files: dict[int, Path], experts: int, k: int) -> None:
    counts: list[int] = []
    keys: dict[str, int] = {}
    for number, path in enumerate(files.values()):
        samples = list(_samples(path, experts, k))
        if not counts:
            counts = [len(ids) for ids, _ in samples]
            keys = _inputs(writer, task, counts)
        if [len(ids) for ids, _ in samples] != counts:
            raise InputError(f"{path} has other samples or lengths than the first layer of {task}; fetch the files again")
        _routes(writer, number, samples, keys, counts, k)


def _samples(path: Path, experts: int, k: int) -> Iterator[tuple[Array, Array]]:
    """(tokens, k) expert ids and gate weights of every line."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:  # type: ignore[union-attr]
        for number, line in enumerate(lines, 1):
            ids, _, weights = line.rstrip("\n").partition("\t\t")
            try:
                pair = _numbers(ids, k).astype(np.int64), _numbers(weights, k).astype(np.float32)
            except ValueError as error:
                raise InputError(
                    f"line {number} of {path} is not {k} ids per token, an empty cell and as many weights"
                ) from error
            if pair[0].shape != pair[1].shape or pair[0].min() < 0 or pair[0].max() >= experts:
                raise InputError(f"line {number} of {path} holds other than {experts} experts, or not one weight per id")
            yield pair


def _numbers(text: str, k: int) -> Array:
    """(tokens, k) numbers of a tab-separated line; ValueError if it holds anything else."""
    values = np.fromstring(text, sep="\t")
    if len(values) != text.count("\t") + 1:
        raise ValueError(text[:40])
    return values.reshape(-1, k)


def _inputs(writer: RunWriter, task: str, counts: list[int]) -> dict[str, int]:
    total = sum(counts)
    keys = {"forward": writer.take("forward", len(counts)), "sequence": writer.take("sequence", len(counts))}
    keys["token"] = writer.take("token", total)
    sequence = keys["sequence"] + np.arange(len(counts))
    rows = {
        "sequence": sequence,
        "source": task,
        "source_row": np.arange(len(counts)),
        "part": 0,
        "beam": 0,
        "stack": "decoder",
    }
    writer.add("sequences", rows | {"document": [f"{task} {i}" for i in range(len(counts))], "domain": task, "tokens": counts})
    writer.add("sequence_labels", {"sequence": sequence, "kind": "domain", "label": task})
    position = np.concatenate([np.arange(n) for n in counts])
    token = {"token": keys["token"] + np.arange(total), "sequence": np.repeat(sequence, counts), "position": position}
    writer.add("tokens", token | {"unit": "row", "special": False, "generated": False})
    forward = {"forward": keys["forward"] + np.arange(len(counts)), "phase": "forward", "step": 0, "batch_size": 1}
    writer.add("forwards", forward | {"tokens": counts})
    return keys


def _routes(
    writer: RunWriter, router: int, samples: list[tuple[Array, Array]], keys: dict[str, int], counts: list[int], k: int
) -> None:
    ids, weights = (np.concatenate(parts) for parts in zip(*samples))
    order = np.argsort(-weights, axis=1, kind="stable")
    ids, weights = np.take_along_axis(ids, order, 1), np.take_along_axis(weights, order, 1)
    slots = (order.astype(np.uint64) << (4 * np.arange(k, dtype=np.uint64))).sum(axis=1, dtype=np.uint64)
    columns = {f"e{r}": ids[:, r].astype(np.uint16) for r in range(k)} | {f"w{r}": weights[:, r] for r in range(k)}
    forward = np.repeat(keys["forward"] + np.arange(len(counts)), counts)
    token = keys["token"] + np.arange(len(ids))
    rows = {
        "forward": forward,
        "router": router,
        "iteration": 0,
        "token": token,
        "slots": slots,
        "dropped": np.zeros(len(ids), np.uint32),
    }
    writer.add(f"routes_{k}", rows | columns)
