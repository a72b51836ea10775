"""dynamo: `engine_data.routed_experts` of its responses: base64 of numbers beside their shape, start and type."""

from collections.abc import Iterator
from pathlib import Path

from . import vllm
from ._core.ask import Ask, Item
from ._core.planes import alignment
from ._core.reading import Head, lines

OPTIONS = vllm.OPTIONS


def accepts(head: Head) -> bool:
    """Records with engine_data."""
    first = head.first.get("response", head.first)
    inner = first.get("nvext") if isinstance(first, dict) else None
    return isinstance(first, dict) and ("engine_data" in first or (isinstance(inner, dict) and "engine_data" in inner))


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every response of a file."""
    model = ask.need("a capture of dynamo")
    found = (item for line in lines(path, ask.step) for item in vllm.answers(line, ask, model, path))
    yield from alignment(found, ask.whole("prompt_start"), ask.notes)
