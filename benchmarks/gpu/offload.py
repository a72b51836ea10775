"""A model larger than the memory it is given on the card: the rest lies on the CPU, and on a disk; same decisions."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import moescope
from benchmarks.gpu.here import Here, Row, guarded
from benchmarks.gpu.speed import SIZES, VOCABULARY, mixtral

SMALL_SHAPE = (256, 512, 8, 4, 2)
_ALL = "select router, token, slot, expert from assignments order by all"


def rows(here: Here) -> Iterator[Row]:
    """Saved in shards, loaded with a bound, traced, and compared with the same model in one place."""
    torch.set_grad_enabled(False)
    model: Any = mixtral(SMALL_SHAPE if here.small else SIZES["1 B active"], here)
    ids = torch.randint(3, VOCABULARY - 1, (2, 24), device=here.device)
    with tempfile.TemporaryDirectory() as folder:
        whole = _traced(model, ids, Path(folder) / "whole.duckdb")
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        model.save_pretrained(Path(folder) / "model", max_shard_size=size // 4)
        del model
        if here.cuda:
            torch.cuda.empty_cache()
        card, beside = ("cuda:0" if here.cuda else "cpu"), size // 3
        bounds: dict[str, dict[Any, int]] = {"a third on the card, the rest on the CPU": {0: beside, "cpu": 4 * size}}
        bounds["a third on the card, a third on the CPU, the rest on a disk"] = {0: beside, "cpu": beside}
        if not here.cuda:
            bounds = {"most in memory, the rest on a disk": {"cpu": size * 4 // 5}}
        for what, bound in bounds.items():
            check = partial(spread, Path(folder), bound, ids, whole, torch.device(card))
            yield guarded(f"{size / 1e9:.2g} GB, {what}", check)


def spread(folder: Path, bound: dict[Any, int], ids: torch.Tensor, whole: list[Any], card: torch.device) -> str:
    """Load with a bound and trace."""
    from transformers import MixtralForCausalLM

    model: Any = MixtralForCausalLM.from_pretrained(
        folder / "model", dtype=torch.bfloat16, device_map="auto", max_memory=bound, offload_folder=str(folder / "offloaded")
    )
    if card.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    places = sorted({str(place) for place in model.hf_device_map.values()})
    found = _traced(model.eval(), ids, folder / f"{len(bound)}-{len(places)}.duckdb")
    peak = f", peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB on the card" if card.type == "cuda" else ""
    if len(places) < 2 or [row[:3] for row in found] != [row[:3] for row in whole]:
        raise AssertionError(f"on {places}: {len(found)} assignments, {len(whole)} in one place")
    other = sum(a != b for a, b in zip(found, whole))
    if other:
        raise AssertionError(f"on {places}: {other} of {len(whole)} assignments differ")
    return f"on {', '.join(places)}: {len(found):,} assignments equal{peak}"


def _traced(model: Any, ids: torch.Tensor, store: Path) -> list[Any]:
    with moescope.Tracer(model, store):
        model(ids)
    with moescope.open(store) as opened:
        return list(opened.rows(_ALL))
