"""A tiny random Mixtral, a data set of ids for it, and what a store says: imported by real processes, so light on work."""

import multiprocessing
import os
import sys
from collections import Counter
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
import transformers

from moescope.inputs import Dataset, Example
from moescope.store import RunWriter, open_store
from moescope.tracer import Options, trace

torch.set_num_threads(1)
VOCABULARY = 60
transformers.MixtralForCausalLM  # noqa: B018  (loaded once, before any fork)
UNTOLD = ["uid", "started", "finished", "seconds", "model_seconds", "trace_seconds", "command", "progress", "name"]


def server() -> ForkServerContext:
    """Processes of this context are forked from one that has imported this module and done nothing with it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tracing"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # Python 3.11 does not hand its path on
    warm = context.Process(target=int)
    warm.start()
    warm.join()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return context


def tiny(layers: int = 2, experts: int = 4, **settings: Any) -> transformers.MixtralForCausalLM:
    """Random weights from one seed, in evaluation mode."""
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": experts, "num_experts_per_tok": 2}
    sizes |= {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**(sizes | settings))).eval()


def ids(count: int = 40) -> Dataset:
    """Texts of 3 to 12 ids, of two domains."""
    random = torch.Generator().manual_seed(1)
    rows = [torch.randint(1, VOCABULARY, (3 + n % 10,), generator=random).numpy() for n in range(count)]
    examples = [
        Example("ids", n, f"doc{n // 2}", input_ids=row, labels={"domain": "odd" if n % 2 else "even"})
        for n, row in enumerate(rows)
    ]
    return Dataset("ids", "0" * 64, "text", examples)


def run(store: Path, witness: Path | None = None, point: str = "", **settings: Any) -> None:
    """Trace in this process, with a shard for each batch; `witness` gets a byte per commit, `point` is where to die."""
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if witness is not None:
        _count_commits(witness)
    if point:
        die_at(point)
    trace(tiny(), ids(), store, batch_size=2, options=Options(commit_rows=1), **settings)


def stream(store: Path, dies: int | None = None, **settings: Any) -> None:
    """Trace a stream of the same, in batches by tokens; with `dies`, killed in the middle of that commit."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    settings = {"batch_tokens": 24, "max_length": 7, "stream": True, "options": Options(commit_rows=1), **settings}
    if dies is not None:
        _die_in_commit(dies)
    trace(tiny(), iter(ids().examples), store, **settings)


def _die_in_commit(number: int) -> None:
    import signal

    from moescope.store.write import writer

    real, sync = RunWriter.commit, writer.sync

    def commit(self: RunWriter, progress: Any) -> None:
        if self._shard == number:
            writer.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        real(self, progress)
        writer.sync = sync

    RunWriter.commit = commit  # type: ignore[method-assign]


def _count_commits(witness: Path) -> None:
    commit = RunWriter.commit

    def counted(self: RunWriter, progress: Any) -> None:
        commit(self, progress)
        with witness.open("ab") as file:
            file.write(b".")

    RunWriter.commit = counted  # type: ignore[method-assign]


def broken_off(real: Any, stop: int) -> Any:
    """A method that is interrupted at its call number `stop`."""
    calls = count()

    def method(*args: Any) -> Any:
        if next(calls) == stop:
            raise KeyboardInterrupt
        return real(*args)

    return method


POINTS = {
    "head written": ("moescope.store.write.writer", "write_atomic", True),
    "shard half written": ("moescope.store.write.writer", "write_rows", True),
    "before the join": ("moescope.store.write.writer", "join_run", False),
    "copied": ("moescope.store.write.join", "offsets", False),
    "joined, not renamed": ("moescope.store.write.join", "add_rollups", True),
    "before the rename": ("moescope.store.write.change.os", "replace", False),
    "renamed": ("moescope.store.write.change.os", "replace", True),
    "folder half removed": ("moescope.store.write.unfinished_run.shutil", "rmtree", True),
}


def die_at(point: str) -> None:
    """Kill this process with SIGKILL before or after a function of the store; in `replace` only when it is the join's."""
    import functools
    import signal

    where, name, after = POINTS[point]
    module: Any = functools.reduce(getattr, where.split(".")[1:], __import__("moescope.store.write.writer"))
    real = getattr(module, name)

    def dying(*args: Any, **named: Any) -> Any:
        late = (point != "before the rename" and point != "renamed") or Path(str(args[0])).stat().st_size > 1 << 20
        if late and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        if point == "folder half removed":
            if not any(Path(args[0]).glob("shard-*")):
                return real(*args, **named)  # another folder
            next(args[0].glob("shard-*")).rename(args[0] / "gone")
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **named)
        if late and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, dying)


def told(store: Path, where: str = "true") -> dict[str, list[str]]:
    """Every row of every table and view that does not tell times or names, sorted, in a form that compares NaN.

    Sums of floats depend on the order in which DuckDB's threads add them, so twelve digits are told.
    """
    with open_store(store) as opened:
        found = {"runs": opened.rows(f"select * exclude ({', '.join(UNTOLD)}) from runs where {where}")}
        found["forwards"] = opened.rows("select * exclude (seconds) from forwards")
        views = opened.rows(  # but those that stand for tables of which rows lie apart
            "select distinct view_name from duckdb_views() where not internal and comment is not null and view_name || '_here' "
            "not in (select table_name from duckdb_tables()) and not regexp_matches(view_name, '_[0-9]+$')"
        )
        tables = [
            "models",
            "routers",
            "experts",
            "sequences",
            "sequence_labels",
            "tokens",
            "token_labels",
            "vocab",
            "pools",
            "logits",
            "measures",
        ]
        for name in sorted({*(v for (v,) in views), *tables}):
            found[name] = opened.rows(f"select * from {name}")
    return {name: sorted(repr(tuple(map(_digits, row))) for row in rows) for name, rows in found.items()}


def _digits(value: Any) -> Any:
    return f"{value:.12g}" if isinstance(value, float) else value


def differences(store: Path, expected: dict[str, list[str]]) -> dict[str, list[str]]:
    """Rows that only one side tells, by table: none for the same record."""
    here = told(store)
    rows = {name: (Counter(here[name]), Counter(expected[name])) for name in expected}
    return {name: sorted((ours - theirs) + (theirs - ours)) for name, (ours, theirs) in rows.items() if ours != theirs}
