"""`trace`: run a model over a data set, batch by batch, and keep every decision; a run that was cut off can be resumed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..inputs import Stream
from ..models.loading import Loaded
from ..store.remote.addresses import local
from ..store.write.change import try_clean_up
from .data.batching import Batch, Reached, batches_of
from .data.drawing import Drawn
from .data.feeding import pad_id, run_batch
from .data.media_feeding import to_prove_on
from .data.windows import decoder_info
from .going_on import go_on, resumable, whole_run
from .options import Options
from .planning import check_plan, loaded_of, plan_of
from .session import Tracer
from .together import agree

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
    plan["batch_tokens"] = batch_tokens
    check_plan(store, name=name, seed=seed, **plan)
    chosen, store = options or Options(**settings), local(store)
    loaded = loaded_of(model, tokenizer, processor, device, dtype, loading or {})
    planned = plan_of(loaded, inputs, plan, seed, stream, name, reading or {}, overrides or {}, chosen, command)
    tracer, key, data = planned.tracer(store, replace=overwrite), planned.key, planned.data
    agree(loaded.model, resume, planned.said())
    asked, rows, drawn = planned.asked, planned.rows, planned.drawn
    if resume and (whole := whole_run(store, key, data, asked)) is not None:
        try_clean_up(store)
        return whole
    writer = resumable(store, key) if resume else None
    try:
        begun: dict[str, Any] = go_on(tracer, writer, chosen) if writer is not None else {}
        if rows is None:
            drawn = Drawn(loaded, data, asked, begun.get("place"))
        batches = batches_of(drawn, rows, int(begun.get("batches", 0)))
    except BaseException:
        if writer is not None:
            writer.release()
        raise
    return _traced(tracer, loaded, drawn, batches, report, planned.overrides)


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
            for reached in run_batches(tracer, loaded, drawn, batches, overrides):
                if report is not None:
                    report(asdict(reached) | tracer.so_far())
            if isinstance(drawn.data, Stream):
                tracer.tell(dataset_sha256=drawn.digest.hexdigest())
        finally:
            tracer.note(drawn.said())
    assert tracer.run is not None
    return tracer.run


def run_batches(
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
        raise (still_kept(error, ran) if ran else error) from error.__cause__


def still_kept(error: InputError, ran: int) -> InputError:
    """What is wrong with data behind so many sequences, and that these are kept."""
    return InputError(
        f"{str(error).rstrip('.')}; the {ran:,} sequences before it are kept: repair it and go on with --resume, or leave such "
        "rows out with --skip-bad --resume"
    )
