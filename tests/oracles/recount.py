"""What a model's experts are really handed, counted by hooks of this file alone: no line of moescope takes part."""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Counted = dict[str, list[dict[int, float]]]
"""{path of the routed block: for each row, {expert: weight}}"""


@dataclass
class Heard:
    """One call of the model, or of its encoder alone: what it was given by name, and what its experts were handed."""

    given: dict[str, Any]
    counted: Counted


@contextmanager
def listening(model: nn.Module) -> Iterator[list[Heard]]:
    """Every outermost call while the block runs, in order, those that failed left out."""
    heard: list[Heard] = []
    counted: Counted = {}
    depth: list[nn.Module] = []
    own = {id(module) for module in model.modules()}  # a copy of the model has our hooks too

    def enter(module: nn.Module, _: Any, __: Any) -> None:
        if id(module) not in own:
            return
        if not depth:
            counted.clear()
        depth.append(module)

    def leave(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if id(module) not in own:
            return
        depth.pop()
        if not depth and output is not None:
            given = inspect.signature(type(module).forward).bind_partial(module, *args, **named).arguments
            heard.append(Heard({**given, **given.pop("kwargs", {})}, dict(counted)))

    handles = [h for name, m in model.named_modules() for h in _hooks(name, m, counted)]
    for module in (m for m in model.modules() if hasattr(m, "main_input_name")):
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def recount(model: nn.Module, inputs: Mapping[str, Any]) -> Counted:
    """Run `model(**inputs)` once and count every assignment; dropped ones are absent, ZAYA's skip is expert E."""
    with torch.no_grad(), listening(model) as heard:
        model(**inputs)
    return heard[0].counted


def _hooks(name: str, module: nn.Module, counted: Counted) -> list[Any]:
    kind = type(module).__name__
    owner = name.rpartition(".")[0]
    if kind == "Llama4Router":
        return [module.register_forward_hook(lambda _, __, o: counted.update({owner: _dense(o[0])}))]
    if kind == "JetMoeTopKGating":
        return [module.register_forward_hook(lambda _, __, o: counted.update({owner: _sorted(*o[1:])}))]
    if kind == "DogeCDMoE":
        return [module.router_gate.register_forward_hook(lambda _, __, o: counted.update({name: _product_keys(module, o)}))]  # type: ignore[union-attr]
    special: dict[str, Any] = {
        "NllbMoeExperts": _numbers,
        "SwitchTransformersExperts": _mask,
        "VitPoseNaiveMoe": _static,
        "ZayaExperts": _zaya,
    }
    if kind in special or (name.endswith("experts") and _called(module)):
        count = special.get(kind, _pairs)
        return [module.register_forward_pre_hook(lambda _, args: counted.update({owner: count(*args)}))]
    return []


def _called(module: nn.Module) -> bool:
    return type(module).forward.__code__.co_argcount >= 4 or hasattr(type(module).forward, "__wrapped__")


def _pairs(_: Tensor, experts: Tensor, weights: Tensor) -> list[dict[int, float]]:
    return [dict(zip(e, w)) for e, w in zip(experts.tolist(), weights.float().tolist())]


def _zaya(hidden: Tensor, experts: Tensor, weights: Tensor) -> list[dict[int, float]]:
    skip = 8
    return [{skip: 0.0} if row == {0: 0.0} else row for row in _pairs(hidden, experts, weights)]


def _dense(scores: Tensor) -> list[dict[int, float]]:
    return [{e: w for e, w in enumerate(row) if w} for row in scores.float().tolist()]


def _sorted(tokens: Tensor, weights: Tensor, sizes: list[int], logits: Tensor) -> list[dict[int, float]]:
    rows: list[dict[int, float]] = [{} for _ in logits]
    numbers = [expert for expert, size in enumerate(sizes) for _ in range(size)]
    for token, expert, weight in zip(tokens.tolist(), numbers, weights.float().tolist()):
        rows[token][expert] = weight
    return rows


def _mask(_: Tensor, mask: Tensor, weights: Tensor) -> list[dict[int, float]]:
    flat = zip(mask.flatten(0, -2).tolist(), weights.flatten().float().tolist())
    return [{row.index(1): weight} if any(row) else {} for row, weight in flat]


def _numbers(_: Tensor, mask: Tensor, weights: Tensor) -> list[dict[int, float]]:
    """NLLB: the layer reads the mask's values as expert numbers."""
    rows = []
    for values, given in zip(mask.tolist(), weights.float().tolist()):
        sums: dict[int, float] = defaultdict(float)
        for expert, weight in zip(values, given):
            sums[expert] += weight
        rows.append({e: w for e, w in sums.items() if w})
    return rows


def _static(hidden: Tensor, indices: Tensor) -> list[dict[int, float]]:
    return [{int(index): 1.0} for index in indices.flatten() for _ in range(hidden.shape[1])]


def _product_keys(block: Any, output: Tensor) -> list[dict[int, float]]:
    """Doge, as its forward has it (transformers.models.doge, DogeCDMoE.forward)."""
    logits = output.view(2, output.shape[0] * output.shape[1], -1)
    (scores_x, scores_y), (indices_x, indices_y) = logits.topk(block.num_keys, dim=-1)
    scores = (scores_x.unsqueeze(-1) + scores_y.unsqueeze(-2)).flatten(1)
    indices = (indices_x.unsqueeze(-1) * block.num_keys + indices_y.unsqueeze(-2)).flatten(1)
    scores, places = scores.topk(block.top_k, dim=-1)
    weights = scores.softmax(-1)
    if block.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return _pairs(output, indices.gather(-1, places), weights)


def real_rows(inputs: Mapping[str, Any], stack: str, rows: int) -> list[int]:
    """Places of the flattened stream that are no padding."""
    mask: Any = inputs.get("attention_mask")
    if stack == "decoder" and {"decoder_input_ids", "decoder_inputs_embeds"} & inputs.keys():
        mask = inputs.get("decoder_attention_mask")
    if not torch.is_tensor(mask) or mask.dim() != 2 or rows % len(mask):
        return list(range(rows))
    return mask[:, -(rows // len(mask)) :].flatten().nonzero()[:, 0].tolist()
