"""What each tool costs beside the plain forward pass of one small Mixtral, and what it stores of a decision."""

import contextlib
import copy
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import moescope
from benchmarks.measure import paired
from benchmarks.peers.tools import top_k
from benchmarks.speed.overhead import SIZES, mixtral, others, traced

SIZE, BATCH, PLACES = "Mixtral 3.8 M", 8, 256
Call = Callable[[], object]
KEEPS = {
    "plain again": "the control: how far two equal passes lie apart",
    "output_router_logits": "logits, in memory",
    "nnsight": "what the router returned, in memory",
    "TransformerLens": "logits, weights, experts, in memory",
    "moewatch": "counts of first choices",
    "plumb-moe": "nothing of this model",
    "moe-policylang": "experts and softmax scores (not the weights used) of every decision, in memory",
    "moe-policylang, saved": "the same, as Parquet on the disk",
    "moescope": "experts, weights, entropy, log-sum-exp and margin of every decision, on the disk, in shards",
}


def costs(rounds: int, tools: list[str]) -> list[dict[str, Any]]:
    """A row for each tool: CPU time over plain (median, quartiles), what it keeps, bytes per decision."""
    plain = mixtral(*SIZES[SIZE])
    ids, size = batch(0), stored(plain, tools)
    with contextlib.ExitStack() as stack, torch.no_grad():
        ours = copy.deepcopy(plain)
        tracer = stack.enter_context(traced(ours))
        variants: dict[str, Call] = {
            "plain": lambda: plain(ids),
            "plain again": lambda: plain(ids),
            "output_router_logits": lambda: plain(ids, output_router_logits=True),
        }
        variants |= others(copy.deepcopy(plain), ids)
        for tool in tools:
            variants |= PEERS[tool](copy.deepcopy(plain), ids, stack)

        def durable() -> None:
            ours(ids)
            tracer.flush()
            while tracer._sink._held:  # until the writing thread has done all of it, without spending time on the wait
                time.sleep(0.0005)
            tracer._sink.check()

        variants["moescope"] = durable
        gc.collect()
        gc.freeze()  # or whoever makes many objects pays for looking through all that the others made
        summary = paired(variants, rounds, "plain").summary()
        gc.unfreeze()
    names = [name for name in summary if name != "plain"]
    return [{"tool": n, "ratio": summary[n], "keeps": KEEPS[n], "bytes_per_decision": size.get(n)} for n in names]


def moewatch(model: Any, ids: torch.Tensor, stack: contextlib.ExitStack) -> dict[str, Call]:
    """Its watcher, looking at every step."""
    import moewatch as tool

    stack.enter_context(tool.MoEWatch(model, config=tool.WatchConfig(sample_every=1, output=tool.OutputMode.SILENT)))
    return {"moewatch": lambda: model(ids)}


def plumb(model: Any, ids: torch.Tensor, stack: contextlib.ExitStack) -> dict[str, Call]:
    """Its hooks, and its thread waited for."""
    from plumb.counter import ActivationCounter
    from plumb.hook import ProfilingHooks, _flush_drain

    hooks = stack.enter_context(ProfilingHooks(ActivationCounter()))
    hooks.attach(model, top_k=top_k(model))
    return {"plumb-moe": lambda: (model(ids), _flush_drain())}


def policylang(model: Any, ids: torch.Tensor, stack: contextlib.ExitStack) -> dict[str, Call]:
    """Its recorder as `record_trace` sets it up; rows are thrown away after each pass, or saved before."""
    recorder = recording(model)
    stack.callback(recorder.remove)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def forward(save: bool) -> None:
        one_pass(recorder, model, ids)
        if save:
            save_parquet(recorder, folder / "trace.parquet")
        recorder.entries.clear()

    return {"moe-policylang": lambda: forward(False), "moe-policylang, saved": lambda: forward(True)}


PEERS: dict[str, Callable[[Any, torch.Tensor, contextlib.ExitStack], dict[str, Call]]] = {
    "moewatch": moewatch, "plumb-moe": plumb, "moe-policylang": policylang,
}  # fmt: skip


def recording(model: Any) -> Any:
    """moe-policylang's recorder on a model, hooks in place, at its defaults (experts and scores)."""
    from moe_policylang.integrations.accessors import auto_accessor
    from moe_policylang.integrations.trace_recorder import _FullSoftmaxRecorder

    accessor = auto_accessor(model)
    recorder = _FullSoftmaxRecorder(accessor, accessor.num_experts, accessor.top_k, record_full_softmax=False)
    recorder.install()
    return recorder


def one_pass(recorder: Any, model: Any, ids: torch.Tensor) -> None:
    """One forward pass, as one prompt."""
    recorder.start_prompt(0, token_ids=ids.flatten().tolist(), prefill_len=ids.numel())
    model(ids)


def save_parquet(recorder: Any, path: Path) -> None:
    """What was recorded, as its own Parquet (zstd)."""
    from moe_policylang.integrations.trace_recorder import TraceRecording

    accessor = recorder.accessor
    trace = TraceRecording("", accessor.num_layers, accessor.num_experts, accessor.top_k, recorder.entries)
    trace.save_parquet(path)


def stored(model: Any, tools: list[str], passes: int = 16) -> dict[str, dict[str, float]]:
    """{tool: {where: bytes on the disk per decision}} after so many passes over different ids, of those that store."""
    inputs = [batch(number) for number in range(passes)]
    decisions = passes * BATCH * PLACES * len(model.model.layers)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        sizes = {"moescope": ours_on_disk(copy.deepcopy(model), inputs, Path(folder) / "run.duckdb")}
        if "moe-policylang" in tools:
            path, watched = Path(folder) / "trace.parquet", copy.deepcopy(model)
            recorder = recording(watched)
            for ids in inputs:
                one_pass(recorder, watched, ids)
            save_parquet(recorder, path)
            sizes["moe-policylang, saved"] = {"Parquet": path.stat().st_size}
    return {tool: {where: size / decisions for where, size in found.items()} for tool, found in sizes.items()}


def ours_on_disk(model: Any, inputs: list[torch.Tensor], path: Path) -> dict[str, int]:
    """Bytes of the shards at the end of the passes, and of the finished file."""
    with moescope.Tracer(model, path) as tracer:
        for ids in inputs:
            model(ids)
        tracer.flush()
        tracer._sink.finish()
        assert tracer._writer is not None
        tracer._writer.commit({})
        shards = sum(file.stat().st_size for file in Path(f"{path}.parts").rglob("*.parquet"))
        tracer._sink.finish = lambda: None  # type: ignore[method-assign]
    return {"shards": shards, "finished file": path.stat().st_size}


def batch(seed: int) -> torch.Tensor:
    """Ids int64 [BATCH, PLACES]."""
    return torch.randint(3, 4000, (BATCH, PLACES), generator=torch.Generator().manual_seed(seed))
