"""`trace`: run a model over a data set, batch by batch, and keep every decision; a run that was cut off can be resumed."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..inputs import Dataset, Example, Stream, read, stream
from ..models.describe import called
from ..models.loading import Loaded, load
from ..models.multimodal.processor import is_processor
from ..models.sources import unwrap
from ..store import column_fit
from ..store.write.change import check_target, try_clean_up
from .batching import Batch, Reached, all_rows, batches_of
from .drawing import Asked, Drawn
from .feeding import override, pad_id, run_batch
from .going_on import go_on, key_of, origin, resumable, whole_run
from .media_feeding import to_prove_on
from .options import Options
from .session import Tracer
from .together import agree
from .windows import decoder_info, windows

Report = Callable[[dict[str, Any]], None]


def trace(
    model: str | Path | nn.Module | Loaded,
    inputs: Any,
    store: str | Path,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    batch_size: int = 8,
    batch_tokens: int | None = None,
    max_tokens: int | None = None,
    max_length: int | None = None,
    limit: int | None = None,
    generate: int = 0,
    seed: int = 0,
    stream: bool = False,
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

    `model`: a specimen's name, a folder, a hub name, a V-MoE checkpoint, or a module (with its `tokenizer`, or its `processor`
    for texts with media). `inputs`: what `moescope.inputs.read` reads, with `reading` as its options: a path or a name; or in
    memory a list or generator of texts, of dicts, of conversations or of token ids, a dict of columns, a pandas, polars or
    Arrow table, a data set. A store that exists gets one more run; `overwrite` begins it anew, `resume` goes on with the same
    trace where it was cut off or interrupted, and leaves it alone if it is complete.
    A folder of a diffusers pipeline takes texts as prompts, one at a time.
    `max_tokens`, `limit`: stop after so many tokens or examples. `batch_tokens`: batches of so many tokens with their padding,
    instead of `batch_size` sequences; of a group of batches the shorter windows run first. `stream`: nothing of the inputs is
    held, and no more drawn than a batch (or group of batches) needs; they may be of any size. `overrides`: routing options to
    set on a V-MoE (capacity_factor, batch_priority ...), or of a pipeline's call (num_inference_steps, height ...), kept with
    the run. InputError, ModelError and StoreError say in one sentence what is wrong; then nothing is written, but for what a
    stream held before, which stays as an interrupted run.
    """
    plan = {"batch_size": batch_size, "max_tokens": max_tokens, "max_length": max_length, "limit": limit, "generate": generate}
    plan |= {} if batch_tokens is None else {"batch_tokens": batch_tokens}
    check_plan(store, name=name, seed=seed, **plan)
    loaded, store, overrides = (
        _loaded(model, tokenizer, processor, device, dtype, loading or {}),
        Path(store),
        dict(overrides or {}),
    )
    asked = _asked(loaded, plan, seed)
    data = _data(inputs, loaded, limit, reading or {}, asked, stream)
    if overrides:
        override(loaded, overrides)
    chosen = options or Options(**settings)
    key = key_of({**plan, "seed": seed, "options": chosen.as_dict(), "overrides": overrides}, loaded, data, reading or {})
    run = {"name": name, "seed": seed, "command": command, "overrides": overrides, "key": key, **origin(loaded, data)}
    tracer = Tracer(loaded.pipe or loaded.model, store, tokenizer=loaded.tokenizer, options=chosen, run=run, replace=overwrite)
    drawn = Drawn(loaded, data, asked)
    rows = all_rows(drawn) if isinstance(data, Dataset) else None
    said = {"data": origin(loaded, data)["dataset_sha256"], "windows": None if rows is None else len(rows)}
    agree(loaded.model, resume, {**plan, "seed": seed, "overrides": overrides, **said})
    if resume and (whole := whole_run(store, key, data, asked)) is not None:
        try_clean_up(store)
        return whole
    writer = resumable(store, key) if resume else None
    try:
        begun = go_on(tracer, writer, chosen) if writer is not None else {}
        if rows is None:
            drawn = Drawn(loaded, data, asked, begun.get("place"))
        batches = batches_of(drawn, rows, int(begun.get("batches", 0)))
    except BaseException:
        if writer is not None:
            writer.release()
        raise
    return _traced(tracer, loaded, drawn, batches, report, overrides)


def _traced(
    tracer: Tracer, loaded: Loaded, drawn: Drawn, batches: Iterator[Batch], report: Report | None, overrides: Mapping[str, Any]
) -> int:
    """Run all batches; what there is to say of the data is kept however it ends."""
    first = next(batches, None)
    if first is not None and (inputs := to_prove_on(loaded, first.windows, pad_id(loaded) or 0)) is not None:
        tracer.prove_on(inputs)
    batches = chain([first] if first is not None else [], batches)
    with tracer:
        try:
            for reached in _run(tracer, loaded, drawn, batches, overrides):
                if report is not None:
                    report(asdict(reached) | tracer.so_far())
            if isinstance(drawn.data, Stream):
                tracer.tell(dataset_sha256=drawn.digest.hexdigest())
        finally:
            tracer.note(drawn.said())
    assert tracer.run is not None
    return tracer.run


def _asked(loaded: Loaded, plan: Mapping[str, Any], seed: int) -> Asked:
    """InputError for batches by tokens of what has none."""
    if plan.get("batch_tokens") is not None and (loaded.pipe is not None or loaded.reads != "text"):
        what = "takes prompts one at a time" if loaded.pipe is not None else f"reads {loaded.reads}s"
        raise InputError(f"batch_tokens counts the tokens of texts, but {loaded.name} {what}: give batch_size")
    asked = Asked(**{name: value for name, value in plan.items() if name != "limit"}, seed=seed)
    return asked if loaded.pipe is None else replace(asked, batch_size=1)


def _run(
    tracer: Tracer, loaded: Loaded, drawn: Drawn, batches: Iterator[Batch], overrides: Mapping[str, Any]
) -> Iterator[Reached]:
    """Run what is left, and say after every batch how far it is."""
    generate = drawn.asked.generate
    for batch in _kept(batches):
        same = tracer.denoising if loaded.times else nullcontext
        infos = [w.info for w in batch.windows]
        decoder = [decoder_info(w, generate > 0) for w in batch.windows]
        with tracer.batch(infos, asdict(batch.reached), decoder), same():
            run_batch(loaded, batch.windows, generate, overrides)
        yield batch.reached


def _kept(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; what is wrong with data behind the first is said with what is kept."""
    ran = 0
    try:
        for batch in batches:
            yield batch
            ran = batch.reached.sequences
    except InputError as error:
        if not ran:
            raise
        said = str(error).rstrip(".")
        raise InputError(
            f"{said}; the {ran:,} sequences before it are kept: repair it and go on with --resume, or leave such rows out with "
            "--skip-bad --resume"
        ) from error


_COLUMNS = {  # where what is asked for ends up
    "name": ("runs", "name"), "seed": ("runs", "seed"), "batch_size": ("forwards", "batch_size"),
    "batch_tokens": ("forwards", "tokens"), "max_tokens": ("runs", "tokens"), "max_length": ("sequences", "tokens"),
    "limit": ("runs", "sequences"), "generate": ("tokens", "position"),
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
        raise InputError(
            f"the processor is {type(processor).__name__}, which makes no inputs of texts with media; give its own"
        )
    if isinstance(model, Loaded):
        return model
    if isinstance(model, nn.Module):
        inner = unwrap(model)
        words = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
        return Loaded(called(inner), inner.eval(), words, processor=processor, no_processor="was given without a processor")
    return load(model, device=device, dtype=dtype, **loading)


def _data(
    inputs: Any, loaded: Loaded, limit: int | None, reading: Mapping[str, Any], asked: Asked, streams: bool
) -> Dataset | Stream:
    known = [name for name in inspect.signature(read).parameters if name not in ("data", "limit", "pad_id", "enough")]
    if unknown := set(reading) - set(known):
        raise InputError(f"reading has no option {min(unknown)!r}: there are {', '.join(known)}")
    if streams and not isinstance(inputs, Dataset):
        return stream(inputs, limit=limit, pad_id=pad_id(loaded), **reading)
    enough = _enough(loaded, asked, bool(reading.get("skip_bad")))
    return read(inputs, limit=limit, pad_id=pad_id(loaded), enough=enough, **reading)


def _enough(loaded: Loaded, asked: Asked, skip_bad: bool) -> Callable[[Example], bool] | None:
    """Whether examples, one after the other, have given `max_tokens` tokens: a generator need not end."""
    if asked.max_tokens is None:
        return None
    numbers, tokens, most = count(), [0], asked.max_tokens

    def enough(example: Example) -> bool:
        one = Dataset("inputs", "", example.kind, [example])
        seed = asked.seed + next(numbers)
        try:
            tokens[0] += sum(map(len, windows(loaded, one, asked.max_length, seed, asked.generate > 0)))
        except InputError:  # which is counted when its windows are drawn
            if not skip_bad:
                raise
        return tokens[0] >= most

    return enough
