"""How each peer is asked for expert counts, by its own documented door where that opens; and what installs it."""

import contextlib
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

Inputs = Mapping[str, torch.Tensor]
Counts = dict[Any, list[int]]
"""{what the tool calls a layer (a path, or a number): assignments of each expert}"""
PEERS = {"moewatch": "moewatch", "plumb-moe": "plumb", "moe-policylang": "moe_policylang"}
NEEDS = {"fastapi": "fastapi", "uvicorn": "uvicorn", "pydantic": "pydantic", "lark": "lark"}  # theirs, not ours


def install(folder: Path) -> None:
    """The peers, and those of their dependencies that are missing here, into a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(folder.resolve()))  # behind everything of this environment
    wanted = [name for name, module in (PEERS | NEEDS).items() if not _there(module)]
    for name in wanted:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", str(folder), name], capture_output=True, text=True)
        if done.returncode:
            print(f"{name} could not be installed: {_last(done.stderr)}")
    importlib.invalidate_caches()


def missing() -> dict[str, str]:
    """{peer: why it cannot be asked} of those that do not import."""
    found = {}
    for name, module in PEERS.items():
        try:
            importlib.import_module(module)
            importlib.import_module(_DOORS[name])
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def top_k(model: nn.Module) -> int:
    """The model's experts per token, as a user would look it up."""
    config: Any = model.config
    config = getattr(config, "ffn_config", config)
    names = ("num_experts_per_tok", "moe_top_k", "num_selected_experts")
    return next((int(value) for name in names if (value := getattr(config, name, None))), 1)


def moewatch(model: nn.Module, inputs: Inputs) -> Counts:
    """`moewatch.audit`, one step, every step looked at."""
    import moewatch as tool

    settings = tool.WatchConfig(sample_every=1, output=tool.OutputMode.SILENT)
    report = tool.audit(model, [dict(inputs)], steps=1, config=settings, verbose=False)
    stats = {name: report.layer_stats(name) for name in report.layer_names()}
    return {name: s.expert_counts.tolist() for name, s in stats.items() if s is not None and s.event_count}


def plumb(model: nn.Module, inputs: Inputs) -> Counts:
    """`plumb.hook.ProfilingHooks`, told the true k (its own launcher always says 2), with a window that holds everything.

    Its `Session` needs a module `numa_topology` that the package does not declare.
    """
    from plumb.counter import ActivationCounter
    from plumb.hook import ProfilingHooks

    counter = ActivationCounter(window_size=10**7)
    hooks = ProfilingHooks(counter)
    try:
        if not hooks.attach(model, top_k=top_k(model)):
            raise LookupError("attaches to no layer")
        with torch.no_grad():
            model(**inputs)
    finally:
        hooks.detach()
    counts: Counts = {}
    for (layer, expert), number in sorted(counter.snapshot().items()):
        row = counts.setdefault(layer, [])
        row += [0] * (expert + 1 - len(row))
        row[expert] = number
    return counts


class OnePrompt:
    """Stands for a tokenizer: whatever the prompt, these inputs."""

    pad_token_id = 0

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def __call__(self, *_: Any, **__: Any) -> Any:
        """The inputs, as a tokenizer would hand them out."""
        from transformers import BatchEncoding

        return BatchEncoding(dict(self.inputs))


def policylang(model: nn.Module, inputs: Inputs) -> Counts:
    """`record_trace` of one prompt, without generation."""
    from moe_policylang.integrations.trace_recorder import record_trace

    trace = record_trace(model, OnePrompt(inputs), [""], max_new_tokens=0)
    counts: Counts = {}
    for entry in trace.entries:
        row = counts.setdefault(entry.layer_idx, [0] * trace.num_experts)
        for expert in entry.selected_experts:
            row[expert] += 1
    return counts


def transformer_lens(model: nn.Module, inputs: Inputs) -> Counts:
    """A bridge around the model, and what its `hook_expert_indices` saw."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    config: Any = model.config
    with contextlib.redirect_stdout(None):
        bridge = build_bridge_from_module(model, type(model).__name__, hf_config=config).eval()
    names = lambda name: name.endswith(("gate.hook_expert_indices", "router.hook_expert_indices"))  # noqa: E731
    with torch.no_grad():
        _, cache = bridge.run_with_cache(inputs["input_ids"], names_filter=names)
    if not cache:
        logits = any(name.endswith(("gate.hook_out", "router.hook_out")) for name in bridge.hook_dict)
        raise LookupError("shows logits, not decisions" if logits else "shows no router")
    experts = next(v for n in _COUNTED if (v := getattr(config, n, None)))
    return {int(n.split(".")[1]): torch.bincount(v.flatten(), minlength=experts).tolist() for n, v in cache.items()}


def moescope(model: nn.Module, inputs: Inputs) -> Counts:
    """A trace, and the view expert_load (whose assignments are those executed)."""
    import moescope as tool

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.duckdb"
        with tool.Tracer(model, path, inputs=dict(inputs)), torch.no_grad():
            model(**inputs)
        with tool.open(path) as store:
            rows = store.rows(
                "select name, assignments from expert_load join routers using (run, router, layer) order by router, expert"
            )
    counts: Counts = {}
    for name, number in rows:
        counts.setdefault(name, []).append(int(number))
    return counts


TOOLS: dict[str, Callable[[nn.Module, Inputs], Counts]] = {
    "moescope": moescope, "moewatch": moewatch, "plumb-moe": plumb, "moe-policylang": policylang,
    "TransformerLens": transformer_lens,
}  # fmt: skip
_DOORS = {
    "moewatch": "moewatch._audit", "plumb-moe": "plumb.hook", "moe-policylang": "moe_policylang.integrations.trace_recorder",
}  # fmt: skip
_COUNTED = ("num_local_experts", "num_experts", "n_routed_experts")


def _there(module: str) -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
