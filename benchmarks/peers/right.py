"""Whose expert counts are right: ten families, counted by hooks of this file alone on what enters the experts."""

import copy
import io
import re
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.tools import TOOLS, Counts, Inputs

FAMILIES = (
    "mixtral", "olmoe", "qwen3_moe", "qwen2_moe", "deepseek_v3", "gpt_oss", "switch_transformers", "nllb-moe", "jamba", "dbrx",
)  # fmt: skip
TOKENS, CAPACITY = 64, 12


@dataclass
class Truth:
    """One routed block: its path, its layer's number, and how many assignments each expert executed."""

    path: str
    layer: int
    counts: list[int]
    decided: list[int] | None = None  # NLLB-MoE executes experts that its router did not choose


def specimen(family: str) -> tuple[nn.Module, Inputs]:
    """The tiny model, and 64 tokens without padding; Switch's capacity is made small enough to drop some."""
    from moescope.models import tiny

    built = tiny.build(family)
    ids = torch.randint(3, 90, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "decoder_input_ids" in built.inputs:
        inputs["decoder_input_ids"] = ids.flip(1)
    for module in built.model.modules():
        if family == "switch_transformers" and hasattr(module, "expert_capacity"):
            module.expert_capacity = CAPACITY
    return built.model, inputs


def recount(model: nn.Module, inputs: Inputs) -> list[Truth]:
    """Run the model once and count what every experts module was handed, in the order of the model's modules."""
    found: dict[str, Truth] = {}
    handles = [
        module.register_forward_pre_hook(lambda m, given, n=name: found.update({n: _handed(n, m, *given)}))
        for name, module in model.named_modules()
        if name.endswith(".experts")
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return [found[name] for name, _ in model.named_modules() if name in found]


def _handed(name: str, experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Truth:
    number = _experts(experts)
    path = name.rpartition(".")[0]
    layer = int(re.findall(r"\.(?:layers|block|blocks|h)\.(\d+)\.", f".{name}")[0])
    kind = type(experts).__name__
    if kind == "SwitchTransformersExperts":  # a one-hot mask; all zero where the token was dropped
        return Truth(path, layer, chosen.flatten(0, -2).sum(0).tolist())
    if kind == "NllbMoeExperts":  # the layer reads the values of a one-hot mask as numbers of experts
        row, place = (weights > 0).nonzero(as_tuple=True)
        return Truth(path, layer, _count(chosen[row, place], number), _count(place, number))
    return Truth(path, layer, _count(chosen, number))


def _experts(experts: Any) -> int:
    return int(getattr(experts, "num_experts", 0)) or next(p.shape[0] for p in experts.parameters() if p.dim() == 3)


def _count(numbers: Tensor, experts: int) -> list[int]:
    return torch.bincount(numbers.flatten(), minlength=experts).tolist()


def conformance(tools: list[str]) -> list[dict[str, Any]]:
    """A row for each family: what each tool says of it, in a few words."""
    rows = []
    for family in FAMILIES:
        model, inputs = specimen(family)
        truth = recount(model, inputs)
        cells = {tool: cell(TOOLS[tool], copy.deepcopy(model), inputs, truth) for tool in tools}
        example = {"path": truth[-1].path, "executed": truth[-1].counts, "decided": truth[-1].decided}
        rows.append({"family": family, "layers": len(truth), "cells": cells, "example": example})
    return rows


def cell(tool: Callable[[nn.Module, Inputs], Counts], model: nn.Module, inputs: Inputs, truth: list[Truth]) -> str:
    """`right`, or what is wrong."""
    silence = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):
            warnings.simplefilter("ignore")
            found = tool(model, inputs)
    except Exception as error:
        if type(error) is LookupError:  # what an adapter of ours has to say
            return str(error)
        said = (str(error).splitlines() or [""])[0][:160]
        return f"{'refuses' if isinstance(error, ValueError) else 'fails'}: {type(error).__name__}: {said}"
    return judged(found, truth)


def judged(found: Counts, truth: list[Truth]) -> str:
    """What is wrong with counts, if anything: layers, number of experts, assignments."""
    if not any(sum(row) for row in found.values()):
        return "records nothing, without an error"
    pairs, remarks = matched(found, truth)
    wide = {len(row) for row, true in pairs if len(row) > len(true.counts)}
    if wide:
        return f"reads hidden states: {max(wide)} “experts” of {len(truth[0].counts)}"
    rows = [(row + [0] * (len(true.counts) - len(row)), true) for row, true in pairs]
    if all(row == true.counts for row, true in rows):
        return "; ".join(remarks) or "right"
    if all(true.decided == row for row, true in rows):
        return "; ".join(["the router's choice, not what ran", *remarks])
    return "; ".join([amount(rows), *remarks])


def amount(rows: list[tuple[list[int], Truth]]) -> str:
    """How counts differ from what ran (for NLLB-MoE: from what was decided)."""
    real = [(row, true.decided or true.counts) for row, true in rows]
    total, seen = sum(sum(true) for _, true in real), sum(sum(row) for row, _ in real)
    over = sum(max(a - b, 0) for row, true in real for a, b in zip(row, true))
    dead = sum(a == 0 < b for row, true in real for a, b in zip(row, true))
    false_dead = f", {dead} of the experts that ran shown with no load" if dead else ""
    if over == 0:
        first = "first choices only: " if all(sum(row) == TOKENS for row, _ in real) else ""
        return f"{first}{seen} of {total} assignments{false_dead}"
    if seen > total:
        return f"counts {seen} assignments where {total} ran"
    return f"wrong experts: {over} of {total} assignments misplaced{false_dead}"


def matched(found: Counts, truth: list[Truth]) -> tuple[list[tuple[list[int], Truth]], list[str]]:
    """Rows beside the blocks that they mean, and remarks on layers missing or misnumbered."""
    if all(isinstance(key, str) for key in found):
        pairs = [(row, true) for key, row in found.items() for true in truth if f"{key}.".startswith(f"{true.path}.")]
    elif set(found) <= {true.layer for true in truth} and len(truth) == len({t.layer for t in truth}):
        pairs = [(row, true) for key, row in found.items() for true in truth if true.layer == key]
    else:
        pairs = list(zip([found[key] for key in sorted(found)], truth))
        said, real = ", ".join(map(str, sorted(found))), ", ".join(str(t.layer) for t in truth)
        return pairs, [f"layers {real} are called {said}"]
    return pairs, [f"{len(pairs)} of {len(truth)} layers"] if len(pairs) < len(truth) else []
