"""`trace`: run a model over a data set, batch by batch, and keep every decision; a run that was cut off can be resumed."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError, StoreError
from ..inputs import Dataset, Example, Span, read
from ..models.describe import called, weights_sha256
from ..models.loading import Loaded, load
from ..models.multimodal.processor import is_processor
from ..models.sources import unwrap
from ..proof import images_per_group
from ..store import RunWriter, column_fit
from ..store.write.change import check_target, try_clean_up
from ..store.write.resume import planned, unfinished
from ..store.write.unfinished_run import UnfinishedRun
from ..weights import precision
from .feeding import override, pad_id, run_batch
from .options import Options
from .sequences.token_rows import SequenceInfo
from .session import Tracer
from .together import agree
from .windows import Window, decoder_info, limited, windows

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Reached:
    """How far a trace has come, as its run keeps it: batches and sequences done, of examples and windows in `total`."""

    batches: int
    sequences: int
    examples: int
    total: int


def trace(
    model: str | Path | nn.Module | Loaded,
    inputs: Any,
    store: str | Path,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    batch_size: int = 8,
    max_tokens: int | None = None,
    max_length: int | None = None,
    limit: int | None = None,
    generate: int = 0,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    loading: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    options: Options | None = None,
    command: list[str] | None = None,
    report: Report | None = None,
    **settings: Any,
) -> int:
    """Trace `model` over `inputs` into `store`; gives the run's number there.

    `model`: a specimen's name, a folder, a hub name, a V-MoE checkpoint, or a module (with its `tokenizer`, or its `processor`). `inputs`: what
    `moescope.inputs.read` reads, with `reading` as its options: a path or a name; or in memory a list or generator of texts, of
    dicts or of token ids, a dict of columns, a pandas, polars or Arrow table, a data set. A store that exists gets one more
    run; `overwrite` begins it anew, `resume` goes on with the same trace where it was cut off or interrupted, and leaves it
    alone if it is complete.
    A folder of a diffusers pipeline takes texts as prompts, one at a time.
    `max_tokens`, `limit`: stop after so many tokens or examples. `overrides`: routing options to set on a V-MoE
    (capacity_factor, batch_priority ...), or of a pipeline's call (num_inference_steps, height ...), kept with the run.
    InputError, ModelError and StoreError say in one sentence what is wrong; then nothing is written.
    """
    asked = {"batch_size": batch_size, "max_tokens": max_tokens, "max_length": max_length, "limit": limit, "generate": generate}
    check_plan(store, name=name, seed=seed, **asked)
    loaded, store, overrides = _loaded(model, tokenizer, processor, device, dtype, loading or {}), Path(store), dict(overrides or {})
    batch_size = batch_size if loaded.pipe is None else 1
    data = _data(inputs, loaded, limit, reading or {}, _enough(loaded, max_length, max_tokens, seed, generate > 0))
    if overrides:
        override(loaded, overrides)
    chosen = options or Options(**settings)
    key = _key({**asked, "seed": seed, "options": chosen.as_dict(), "overrides": overrides}, loaded, data)
    run = {"name": name, "seed": seed, "command": command, "overrides": overrides, "key": key, **_origin(loaded, data)}
    tracer = Tracer(loaded.pipe or loaded.model, store, tokenizer=loaded.tokenizer, options=chosen, run=run, replace=overwrite)
    rows, notes = _rows(loaded, data, max_length, max_tokens, seed, generate > 0)
    agree(loaded.model, resume, {**asked, "seed": seed, "overrides": overrides, "data": data.sha256, "windows": len(rows)})
    tracer.note(notes)
    if resume and (whole := _whole(store, key)) is not None:
        try_clean_up(store)
        return whole
    done = _go_on(tracer, _resumable(store, key), chosen) if resume else 0
    with tracer:
        for reached in _run(
            tracer, loaded, rows, Reached(done, 0, len(data.examples), len(rows)), batch_size, generate, overrides
        ):
            if report is not None:
                report(asdict(reached) | tracer.so_far())
    assert tracer.run is not None
    return tracer.run


def _key(asked: Mapping[str, Any], loaded: Loaded, data: Dataset) -> str:
    """Tells a trace from others: the same key is the same model, data and settings."""
    own = {"data": data.sha256, "weights": weights_sha256(loaded.model), "dtype": str(precision(loaded.model))}
    return hashlib.sha256(json.dumps({**asked, **own}, sort_keys=True, default=str).encode()).hexdigest()


def _origin(loaded: Loaded, data: Dataset) -> dict[str, Any]:
    """What a run keeps of its model and data."""
    said = [*loaded.notes, *data.warnings]
    return {"dataset": data.name, "dataset_sha256": data.sha256, "model_name": loaded.name, "warnings": said}


def _whole(store: Path, key: str) -> int | None:
    """The run of this trace if it is complete."""
    found = planned(store, key)
    return found[0] if found and found[1] == "complete" and not _fitting(store, key) else None


def _go_on(tracer: Tracer, writer: RunWriter, options: Options) -> int:
    """Let the tracer go on with a run; gives how many batches it has. InputError if it cannot be gone on with."""
    done = int(writer.part.progress.get("batches", 0))
    if options.activations and done:
        writer.release()
        raise InputError(
            "a trace that sums activations cannot be gone on with, for its sums went with it; trace without --resume, and "
            "keep what is there with moescope recover"
        )
    tracer.resume(writer)
    return done


def _run(
    tracer: Tracer, loaded: Loaded, rows: list[Window], begin: Reached, size: int, generate: int, overrides: Mapping[str, Any]
) -> Iterator[Reached]:
    """Run what is left after `begin`, and say after every batch how far it is."""
    for number, batch in enumerate(_batches(rows, size)):
        if number < begin.batches:
            continue
        reached = replace(begin, batches=number + 1, sequences=number * size + len(batch))
        same = tracer.denoising if loaded.times else nullcontext
        with tracer.batch([w.info for w in batch], asdict(reached), [decoder_info(w, generate > 0) for w in batch]), same():
            run_batch(loaded, batch, generate, overrides)
        yield reached


_COLUMNS = {  # where what is asked for ends up
    "name": ("runs", "name"), "seed": ("runs", "seed"), "batch_size": ("forwards", "batch_size"),
    "max_tokens": ("runs", "tokens"), "max_length": ("sequences", "tokens"), "limit": ("runs", "sequences"),
    "generate": ("tokens", "position"),
}  # fmt: skip


def check_plan(store: str | Path, **asked: Any) -> None:
    """InputError or StoreError, before anything is loaded, if a trace like this could not be joined to `store` at its end."""
    for option, value in asked.items():
        table, column = _COLUMNS[option]
        column_fit.check(table, **{column: value})
    check_target(Path(store))


def _loaded(model: Any, tokenizer: Any, processor: Any, device: str, dtype: str, loading: Mapping[str, Any]) -> Loaded:
    if is_processor(tokenizer):
        processor, tokenizer = tokenizer, None
    if processor is not None and not is_processor(processor):
        raise InputError(f"the processor is {type(processor).__name__}, which makes no inputs of texts with media; give its own")
    if isinstance(model, Loaded):
        return model
    if isinstance(model, nn.Module):
        inner = unwrap(model)
        words = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
        return Loaded(called(inner), inner.eval(), words, processor=processor, no_processor="was given without a processor")
    return load(model, device=device, dtype=dtype, **loading)


def _data(
    inputs: Any, loaded: Loaded, limit: int | None, reading: Mapping[str, Any], enough: Callable[[Example], bool] | None
) -> Dataset:
    known = [name for name in inspect.signature(read).parameters if name not in ("data", "limit", "pad_id", "enough")]
    if unknown := set(reading) - set(known):
        raise InputError(f"reading has no option {min(unknown)!r}: there are {', '.join(known)}")
    return read(inputs, limit=limit, pad_id=pad_id(loaded), enough=enough, **reading)


def _enough(
    loaded: Loaded, max_length: int | None, max_tokens: int | None, seed: int, generate: bool
) -> Callable[[Example], bool] | None:
    """Whether examples, one after the other, have given `max_tokens` tokens: a generator need not end."""
    if max_tokens is None:
        return None
    numbers, tokens = count(), [0]

    def enough(example: Example) -> bool:
        one = Dataset("inputs", "", example.kind, [example])
        tokens[0] += sum(map(len, windows(loaded, one, max_length, seed + next(numbers), generate)))
        return tokens[0] >= max_tokens

    return enough


def _resumable(store: Path, key: str) -> RunWriter:
    if fitting := _fitting(store, key):
        return RunWriter.resume(store, fitting[-1])
    if (found := planned(store, key)) is not None:
        return RunWriter.reopen(store, found[0])
    there = len(unfinished(store))
    others = f"; what was cut off there is of another model, data set or setting ({there} runs)" if there else ""
    raise StoreError(f"there is nothing to resume in {store} for this model, data and settings{others}; trace without --resume")


def _fitting(store: Path, key: str) -> list[UnfinishedRun]:
    return [part for part in unfinished(store) if part.head["run"].get("key") == key]


def _rows(
    loaded: Loaded, data: Dataset, max_length: int | None, max_tokens: int | None, seed: int, generate: bool
) -> tuple[list[Window], list[str]]:
    """All windows, and sentences on what they are not."""
    rows = list(limited(windows(loaded, data, max_length, seed, generate), max_tokens))
    notes = []
    if split := len({(w.info.source, w.info.row) for w in rows if w.info.part and w.ids is not None}):
        notes.append(f"{split} texts are longer than {max(len(w.ids or ()) for w in rows)} tokens; each was traced in windows")
    if lost := len({(w.info.source, w.info.row) for w in rows if w.unplaced}):
        notes.append(
            f"the labels of words and spans of {lost} texts are left out: the tokenizer does not say where its tokens are in "
            "the text, and what they spell is not the text"
        )
    if bare := [(w.info, span) for w in rows for span in w.bare]:
        notes.append(f"{len(bare)} spans label no token, which all lie outside them or more in others: {_named(bare)}")
    group = images_per_group(loaded.model)
    if rest := len(rows) % group:
        notes.append(f"the last {rest} images do not fill a group of {group}, which is routed together; they were left out")
        rows = rows[:-rest]
    if not rows:
        raise InputError(f"{data.name} gives nothing to trace" + (f": it needs at least {group} images" if group > 1 else ""))
    return rows, notes


def _named(bare: list[tuple[SequenceInfo, Span]], most: int = 5) -> str:
    """The first spans that label no token."""
    said = [f"{i.source}, row {i.row}: {s.kind} {s.value!r} of characters {s.start} to {s.end}" for i, s in bare[:most]]
    return "; ".join(said) + (f"; and {len(bare) - most} more" if len(bare) > most else "")


def _batches(rows: list[Window], size: int) -> Iterator[list[Window]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))
