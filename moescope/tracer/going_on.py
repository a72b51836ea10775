"""Which trace is which, and going on with one that was cut off or interrupted."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, StoreError
from ..inputs import Dataset, Digest, Stream
from ..models.describe import weights_sha256
from ..models.loading import Loaded
from ..store import RunWriter
from ..store.write.resume import planned, unfinished
from ..store.write.unfinished_run import UnfinishedRun
from ..weights import precision
from .data.drawing import Asked
from .options import Options
from .session import Tracer

Writer = TypeVar("Writer", bound=RunWriter)


def key_of(plan: Mapping[str, Any], loaded: Loaded, data: Dataset | Stream, reading: Mapping[str, Any]) -> str:
    """Tells a trace from others: the same key is the same model, data and settings. Of a stream the data are known by their
    name and by how they are read; that they are the same is asked when it is gone on with."""
    own: dict[str, Any] = {"data": data.sha256} if isinstance(data, Dataset) else {"stream": [data.name, _named(reading)]}
    own |= {"weights": weights_sha256(loaded.model), "dtype": str(precision(loaded.model))}
    if (template := getattr(loaded.tokenizer, "chat_template", None)) is not None:
        own["template"] = template
    return hashlib.sha256(json.dumps({**plan, **own}, sort_keys=True, default=str).encode()).hexdigest()


def _named(reading: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of the reader that changes what it gives."""
    return {name: value for name, value in reading.items() if value and name != "skip_bad"}


def origin(loaded: Loaded, data: Dataset | Stream) -> dict[str, Any]:
    """What a run keeps of its model and data; a stream's hash and warnings are known when it ends."""
    if isinstance(data, Stream):
        return {"dataset": data.name, "dataset_sha256": None, "model_name": loaded.name, "warnings": [*loaded.notes]}
    said = [*loaded.notes, *data.warnings]
    return {"dataset": data.name, "dataset_sha256": data.sha256, "model_name": loaded.name, "warnings": said}


def whole_run(store: Path, key: str, data: Dataset | Stream, asked: Asked) -> int | None:
    """The run of this trace if it is complete. StoreError where it is of a stream that held something else."""
    found = planned(store, key)
    if found is None or found[1] != "complete" or _fitting(store, key):
        return None
    if isinstance(data, Stream) and not _begins(data, found[2], ends=asked.max_tokens is None):
        raise StoreError(f"run {found[0]} of {store} is of a stream that held something else; trace without --resume")
    return found[0]


def _begins(data: Stream, sha256: str | None, ends: bool) -> bool:
    """Whether a stream begins with examples of this hash, and `ends` behind them."""
    digest = Digest()
    for example in data.examples:
        digest.add(example)
        if digest.hexdigest() == sha256:
            return not ends or next(data.examples, None) is None
    return False


def go_on(tracer: Tracer, writer: RunWriter, options: Options) -> dict[str, Any]:
    """Let the tracer go on with a run; gives how far it is. InputError if it cannot be gone on with."""
    begun = dict(writer.part.progress)
    if options.activations and begun.get("batches"):
        raise InputError(
            "a trace that sums activations cannot be gone on with, for its sums went with it; trace without --resume, and "
            "keep what is there with moescope recover"
        )
    tracer.resume(writer)
    return begun


def resumable(store: Path, key: str, kind: type[Writer] = RunWriter) -> Writer:  # type: ignore[assignment]
    """What goes on with the trace of this key. StoreError if there is none that was cut off."""
    if fitting := _fitting(store, key):
        return kind.resume(store, fitting[-1])  # type: ignore[return-value]
    if (found := planned(store, key)) is not None:
        return kind.reopen(store, found[0])  # type: ignore[return-value]
    there = len(unfinished(store))
    others = f"; what was cut off there is of another model, data set or setting ({there} runs)" if there else ""
    raise StoreError(f"there is nothing to resume in {store} for this model, data and settings{others}; trace without --resume")


def _fitting(store: Path, key: str) -> list[UnfinishedRun]:
    return [part for part in unfinished(store) if part.head["run"].get("key") == key]
