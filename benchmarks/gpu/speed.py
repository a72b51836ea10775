"""What tracing costs: Mixtral-shaped models with random weights, paired rounds against plain, prefill and decode."""

import copy
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import moescope
from benchmarks.gpu.here import Here, Row
from benchmarks.measure import paired
from benchmarks.speed.overhead import drained

SIZES = {  # hidden, inner, layers, heads, key-value heads: active and all parameters follow
    "0.1 B active": (768, 2048, 8, 12, 4),
    "1 B active": (2048, 5632, 12, 16, 8),
    "7 B active": (4096, 14336, 17, 32, 8),
}
SMALL = {"tiny": (64, 96, 2, 4, 2), "small": (128, 128, 3, 4, 2)}
BATCH, PLACES, STEPS, VOCABULARY = 8, 512, 32, 32000
SECONDS = 3.0  # of plain forwards, which a whole trace is about as long as


def rows(here: Here) -> Iterator[Row]:
    """Rows of every size that fits, the smallest first."""
    torch.set_grad_enabled(False)
    sizes = SMALL if here.small else SIZES
    for number, (size, shape) in enumerate(sizes.items()):
        needed, free = 2 * parameters(*shape)[1], _free(here)
        if needed * 1.05 + 4e9 > free:
            yield Row(f"{size}: left out", f"{needed / 1e9:.0f} GB of weights, {free / 1e9:.0f} GB free")
            continue
        seconds = here.left() / (len(sizes) - number) - 5
        try:
            yield from measured(size, mixtral(shape, here), seconds, here)
        except torch.OutOfMemoryError as error:
            yield Row(f"{size}: broken off", f"out of memory: {str(error)[:120]}", good=False)
        gc.collect()
        if here.cuda:
            torch.cuda.empty_cache()


def parameters(hidden: int, inner: int, layers: int, heads: int, groups: int) -> tuple[int, int]:
    """(active for a token, all)."""
    attention = hidden * hidden * 2 + 2 * hidden * hidden * groups // heads
    rest = layers * (attention + 8 * hidden) + 2 * VOCABULARY * hidden
    return rest + layers * 2 * 3 * hidden * inner, rest + layers * 8 * 3 * hidden * inner


def mixtral(shape: tuple[int, ...], here: Here) -> nn.Module:
    """bf16, made where it runs."""
    from transformers import MixtralConfig, MixtralForCausalLM

    hidden, inner, layers, heads, groups = shape
    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, num_local_experts=8, num_experts_per_tok=2, sliding_window=None,
        architectures=["MixtralForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    with here.device:
        model: Any = MixtralForCausalLM._from_config(config, dtype=torch.bfloat16)
    return model.eval()  # type: ignore[no-any-return]


def twin(model: nn.Module) -> nn.Module:
    """Another module over the same weights: one is traced, one is not."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def measured(size: str, model: Any, seconds: float, here: Here) -> Iterator[Row]:
    """Ratios in half of the time each, then a trace of its own for rows a second and memory."""
    active = sum(p.numel() for n, p in model.named_parameters() if ".experts." not in n)
    active += sum(p.numel() for n, p in model.named_parameters() if ".experts." in n) // 4
    whole = sum(p.numel() for p in model.parameters())
    yield Row(f"{size}: parameters, active of all", f"{active / 1e9:.3f} of {whole / 1e9:.2f}", "B")
    batch, places, steps = (2, 32, 4) if here.small else (BATCH, PLACES, STEPS)
    ids = torch.randint(3, VOCABULARY - 1, (batch, places), device=here.device)
    work = {
        f"prefill {batch} × {places}": lambda m: m(ids),
        f"{steps} decode steps of {batch}": lambda m: decode(m, ids, steps),
    }
    for what, run in work.items():
        yield from ratios(f"{size}, {what}", model, run, seconds * 0.4, here)
        yield from durable(f"{size}, {what}", model, run, here)


def decode(model: Any, ids: torch.Tensor, steps: int) -> None:
    """One token a step behind a cache."""
    cache = model(ids[:, :64], use_cache=True).past_key_values
    for place in range(steps):
        model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)


def ratios(what: str, model: nn.Module, run: Callable[[Any], object], seconds: float, here: Here) -> Iterator[Row]:
    """Traced over plain, all of it counted until the rows are durable; plain over plain beside it."""
    ours = twin(model)
    with tempfile.TemporaryDirectory() as folder, moescope.Tracer(ours, Path(folder) / "run.duckdb") as tracer:

        def handed_over() -> None:
            run(ours)
            tracer.flush()

        def made_durable() -> None:
            run(ours)
            drained(tracer)

        variants: dict[str, Callable[[], object]] = {"plain": lambda: run(model), "plain again": lambda: run(model)}
        variants |= {"traced": handed_over, "traced, rows written": made_durable}
        found = paired(variants, 4 if here.small else 40, "plain", seconds=seconds)
    taken = sorted(found.times["plain"])
    yield Row(f"{what}: plain", taken[len(taken) // 2] * 1e3, "ms", (taken[0] * 1e3, taken[-1] * 1e3))
    for name, (median, low, high) in found.summary().items():
        if name != "plain":
            yield Row(f"{what}: {name} ÷ plain, {len(taken)} rounds", median, "×", (low, high))


def durable(what: str, model: nn.Module, run: Callable[[Any], object], here: Here) -> Iterator[Row]:
    """A whole trace: decisions that are in the finished file, a second; how long the model waited; what memory it took."""
    began = time.perf_counter()
    plain = peak(lambda: run(model), here)
    often = 2 if here.small else min(200, max(4, int(SECONDS / (time.perf_counter() - began))))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        with moescope.Tracer(model, store) as tracer:
            began = time.perf_counter()
            traced = peak(lambda: [run(model) for _ in range(often)], here)
            ran, waited = time.perf_counter() - began, tracer._sink.waited
        took = time.perf_counter() - began
        with moescope.open(store) as opened:
            count = opened.rows("select count(*) from decisions")[0][0]
    yield Row(f"{what}: decisions a second, from the first forward to the finished file", count / took / 1e6, "M")
    yield Row(f"{what}: the model waited for the writing thread", waited / ran * 100, "% of the time")
    if here.cuda:
        yield Row(f"{what}: peak GPU memory traced, over plain", f"{traced / 1e9:.3f} over {plain / 1e9:.3f}", "GB")


def peak(run: Callable[[], object], here: Here) -> int:
    """The most bytes that tensors held on the GPU meanwhile; 0 without one."""
    if not here.cuda:
        run()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _free(here: Here) -> float:
    return float(torch.cuda.mem_get_info()[0]) if here.cuda else float("inf")
