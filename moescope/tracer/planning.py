"""What a trace is: a model, the windows of its data in their order, and what is recorded; known before anything runs."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
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
from ..store.remote.addresses import local
from ..store.write.change import check_target
from .data.batching import all_rows
from .data.drawing import Asked, Drawn
from .data.feeding import override, pad_id
from .data.windows import Window, windows
from .going_on import key_of, origin
from .options import Options
from .session import Tracer


@dataclass
class Planned:
    """A trace before it runs. `key` tells it from others; `rows`: all windows of a data set, None of a stream."""

    loaded: Loaded
    data: Dataset | Stream
    asked: Asked
    plan: dict[str, Any]
    overrides: dict[str, Any]
    options: Options
    key: str
    run: dict[str, Any]
    drawn: Drawn
    rows: list[Window] | None
    read: Callable[[], Dataset | Stream]  # the data once more, from their beginning

    def tracer(self, store: Path, kind: type[Tracer] = Tracer, replace: bool = False) -> Tracer:
        """What records it."""
        run, loaded = dict(self.run), self.loaded
        return kind(
            loaded.pipe or loaded.model, store, tokenizer=loaded.tokenizer, options=self.options, run=run, replace=replace
        )

    def said(self) -> dict[str, Any]:
        """What all processes that run it must have been asked alike."""
        of_data = {"data": self.run["dataset_sha256"], "windows": None if self.rows is None else len(self.rows)}
        return {**self.plan, "overrides": self.overrides, **of_data}


def plan_of(
    loaded: Loaded,
    inputs: Any,
    plan: Mapping[str, Any],
    seed: int,
    streams: bool,
    name: str | None,
    reading: Mapping[str, Any],
    overrides: Mapping[str, Any],
    options: Options,
    command: list[str] | None,
) -> Planned:
    """Read the data, and make its windows unless it `streams`. InputError where data, model and options do not fit."""
    plan = {name: value for name, value in plan.items() if name != "batch_tokens" or value is not None}
    asked = _asked(loaded, plan, seed)
    read, overrides = partial(_data, inputs, loaded, plan["limit"], reading, asked, streams), dict(overrides)
    data = read()
    if overrides:
        override(loaded, overrides)
    plan = {**plan, "seed": seed}
    key = key_of({**plan, "options": options.as_dict(), "overrides": overrides}, loaded, data, reading)
    run = {"name": name, "seed": seed, "command": command, "overrides": overrides, "key": key, **origin(loaded, data)}
    drawn = Drawn(loaded, data, asked)
    rows = all_rows(drawn) if isinstance(data, Dataset) else None
    return Planned(loaded, data, asked, plan, overrides, options, key, run, drawn, rows, read)


def _asked(loaded: Loaded, plan: Mapping[str, Any], seed: int) -> Asked:
    """InputError for batches by tokens of what has none."""
    if plan.get("batch_tokens") is not None and (loaded.pipe is not None or loaded.reads != "text"):
        what = "takes prompts one at a time" if loaded.pipe is not None else f"reads {loaded.reads}s"
        raise InputError(f"batch_tokens counts the tokens of texts, but {loaded.name} {what}: give batch_size")
    asked = Asked(**{name: value for name, value in plan.items() if name != "limit"}, seed=seed)
    return asked if loaded.pipe is None else replace(asked, batch_size=1)


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
    check_target(local(store))


def loaded_of(model: Any, tokenizer: Any, processor: Any, device: str, dtype: str, loading: Mapping[str, Any]) -> Loaded:
    """A model that is named or given. InputError for what is no processor."""
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
