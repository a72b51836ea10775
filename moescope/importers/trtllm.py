"""TensorRT-LLM: `CompletionOutput.routed_experts` (tokens - 1, MoE layers, k), kept as JSON lines or .npz as of vLLM's offline
API.

Its planes are the layers with a router alone, and its experts logical. Nothing of it could be tried here: read from its source.
"""

from collections.abc import Iterator
from pathlib import Path

from . import vllm
from ._core.ask import Ask, Item
from ._core.captured import Captured, Fault
from ._core.reading import Head

OPTIONS = vllm.OPTIONS


def accepts(head: Head) -> bool:
    """Only where it is named: its files look like those of vLLM's offline API."""
    return False


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every output of a file."""
    model = ask.need("a capture of TensorRT-LLM")
    routers = len(model.routed)
    for item in vllm.read(path, ask):
        if isinstance(item, Captured) and item.experts.shape[1] != routers:
            yield Fault(f"{item.where}: {item.experts.shape[1]} layers, and {model.name} has {routers} routers")
        else:
            yield item
