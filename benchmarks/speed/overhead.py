"""What tracing costs beside the forward pass, and what others cost: CPU time, paired round by round, in random order.

Everything that moescope does is counted: hooks, summaries, the writing thread, shards on the disk.
"""

import contextlib
import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import MixtralConfig, MixtralForCausalLM

import moescope
from benchmarks.measure import Ratios, device, paired

SIZES = {"Mixtral 108 M": (512, 1024, 8), "Mixtral 3.8 M": (128, 128, 8)}


def mixtral(hidden: int, inner: int, layers: int) -> MixtralForCausalLM:
    """Random weights: routing costs the same."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=4096, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2, architectures=["MixtralForCausalLM"],
    )  # fmt: skip
    return MixtralForCausalLM(config).eval().to(device())


@contextlib.contextmanager
def traced(model: torch.nn.Module) -> Iterator[moescope.Tracer]:
    """A tracer whose run is thrown away; shards are committed every million rows or ten seconds, as by default."""
    with tempfile.TemporaryDirectory() as folder, moescope.Tracer(model, Path(folder) / "run.duckdb") as tracer:
        yield tracer


def prefill(size: str, rounds: int, batch: int = 8, places: int = 256, peers: bool = True) -> Ratios:
    """Ratios of one forward pass of `batch` × `places` tokens."""
    plain = mixtral(*SIZES[size])
    ids = torch.randint(3, 4000, (batch, places), device=device())
    with contextlib.ExitStack() as stack:
        ours = copy.deepcopy(plain)
        tracer = stack.enter_context(traced(ours))

        def moescope_durable() -> None:
            ours(ids)
            drained(tracer)

        variants: dict[str, Callable[[], object]] = {
            "plain": lambda: plain(ids),
            "plain again": lambda: plain(ids),
            "moescope": moescope_durable,
            "output_router_logits": lambda: plain(ids, output_router_logits=True),
        }
        variants |= others(copy.deepcopy(plain), ids) if peers else {}
        return paired(variants, rounds, "plain")


def decode(size: str, rounds: int, batch: int = 8, context: int = 65) -> Ratios:
    """Ratios of 64 decode steps of `batch` sequences behind a cache."""
    plain = mixtral(*SIZES[size])
    ids = torch.randint(3, 4000, (batch, context), device=device())

    def steps(model: torch.nn.Module) -> None:
        cache = model(ids[:, :1], use_cache=True).past_key_values
        for place in range(1, 65):
            model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)

    with contextlib.ExitStack() as stack:
        ours = copy.deepcopy(plain)
        tracer = stack.enter_context(traced(ours))

        def moescope_durable() -> None:
            steps(ours)
            drained(tracer)

        return paired(
            {"plain": lambda: steps(plain), "plain again": lambda: steps(plain), "moescope": moescope_durable}, rounds, "plain"
        )


def drained(tracer: moescope.Tracer) -> None:
    """Wait until the writing thread has turned all it was given into rows, and commit them: nothing is left for later."""
    tracer.flush()
    while tracer._sink._held:
        time.sleep(1e-4)
    tracer._sink.check()


def others(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, Callable[[], object]]:
    """nnsight and TransformerLens, where they are installed."""
    found: dict[str, Callable[[], object]] = {}
    warnings.filterwarnings("ignore")
    with contextlib.suppress(ImportError):
        from nnsight import NNsight

        watched = NNsight(copy.deepcopy(model))

        def nnsight() -> None:
            with watched.trace(ids):
                [layer.mlp.gate.output.save() for layer in watched.model.layers]

        found["nnsight"] = nnsight
    with contextlib.suppress(ImportError):
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        bridge = build_bridge_from_module(model, "MixtralForCausalLM", hf_config=model.config).eval()
        names = lambda name: name.endswith(("hook_expert_weights", "hook_expert_indices", "mlp.gate.hook_out"))  # noqa: E731
        found["TransformerLens"] = lambda: bridge.run_with_cache(ids, names_filter=names)
    return found
