"""Megatron-LM: `router_trace_rank<r>.jsonl` of its routing trace (a hook) and of its replay sink (under CUDA graphs).

A folder, or one rank's file; logits_rank<r>.bin and router_state_rank<r>.pt beside it are read where they are. The hook numbers
layers from 0 within a pipeline stage, the sink from 1 throughout. Training routers keep a map of booleans: experts ascending,
no rank. Traces name no token, so each forward is a sequence of rows. Of several ranks one is taken (-p rank=N), or the stages
of a pipeline (-p layer_offsets=[0,16]), or the slices of sequence parallelism (-p slices=true).
"""

from collections.abc import Iterator
from pathlib import Path

from ._core.ask import Ask, Item
from ._core.reading import Head
from ._forms.megatron_ranks import TRACE
from ._forms.megatron_trace import traced

OPTIONS = {
    "rank": "of several ranks, the one that is taken",
    "layer_offsets": "pipeline stages: what to add to the layers of each rank, e.g. [0,16]",
    "slices": "true: ranks hold slices of each forward's tokens (sequence parallelism), which are put behind each other",
    "numbering": "hook (layers from 0) or sink (from 1), where the numbers do not tell",
}


def accepts(head: Head) -> bool:
    """A folder of traces, or one of them."""
    if head.path.is_dir():
        return any(TRACE.fullmatch(file.name) for file in head.path.iterdir())
    return "top_indices" in head.first and "layer" in head.first


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every forward of a trace."""
    yield from traced(path, ask)
