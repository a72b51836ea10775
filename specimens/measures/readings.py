"""Runs a held-out passage through a specimen, in stretches of the length it was trained on, and reads its routers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SwitchTransformersForConditionalGeneration,
)

from specimens.corpora.spans import corrupt
from specimens.corpora.tokens import SENTINELS

Routed = tuple[list[int], list[int], list[bool], np.ndarray]
CAUSAL_LENGTH, SPAN_LENGTH = 255, 128


@dataclass(frozen=True)
class Reading:
    """Loss of one stretch (sum in nats, number of targets) and per router (places, top-1, executed, load) of its tokens."""

    nats: float
    counted: int
    routers: dict[str, Routed]


def load(kind: type[PreTrainedModel], folder: Path, weights: Path) -> PreTrainedModel:
    """A model with the configuration of one folder and the weights of another, in float32."""
    return kind.from_pretrained(weights, config=AutoConfig.from_pretrained(folder), dtype=torch.float32)


class Ear:
    """Collects what the routers of one class return during a forward."""

    def __init__(self, model: PreTrainedModel, kind: str) -> None:
        self.heard: dict[str, tuple] = {}
        for name, module in model.named_modules():
            if type(module).__name__ == kind:
                module.register_forward_hook(lambda _m, _i, out, name=name: self.heard.__setitem__(name, out))


def ear(model: PreTrainedModel, kind: str) -> Ear:
    """The model's ear, made on first use."""
    if not hasattr(model, "_ear"):
        model._ear = Ear(model, kind)
    return model._ear


def read_mixtral(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> Iterator[Reading]:
    """Stretches of 255 ids behind `<s>`; the routers' figures leave `<s>` out."""
    heard = ear(model, "MixtralTopKRouter").heard
    for begin in range(0, len(ids), CAUSAL_LENGTH):
        part = ids[begin : begin + CAUSAL_LENGTH]
        full = torch.tensor([[tokenizer.bos_token_id, *part.tolist()]])
        nats = float(torch.nn.functional.cross_entropy(model(full).logits[0, :-1], full[0, 1:], reduction="sum"))
        places = list(range(begin, begin + len(part)))
        routers = {}
        for name, (_, weights, chosen) in heard.items():
            top = chosen.gather(-1, weights.argmax(-1, keepdim=True))[1:, 0].tolist()
            load_ = np.bincount(chosen[1:].flatten().numpy(), minlength=8)
            routers[name] = (places, top, [True] * len(part), load_)
        yield Reading(nats, len(part), routers)


def read_switch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> Iterator[Reading]:
    """Stretches of up to 128 ids, corrupted with a fixed seed; stretches under 32 ids are left out."""
    heard, random = ear(model, "SwitchTransformersTop1Router").heard, np.random.default_rng(len(ids))
    sentinels, far = tokenizer.convert_tokens_to_ids(SENTINELS), 1_000_000
    for begin in range(0, len(ids), SPAN_LENGTH):
        part = ids[begin : begin + SPAN_LENGTH]
        if len(part) < 32:
            continue
        placed = corrupt(np.arange(len(part)) + far, sentinels, tokenizer.eos_token_id, random)
        source, target = ([int(part[t - far]) if t >= far else t for t in side] for side in placed)
        out = model(input_ids=torch.tensor([source]), labels=torch.tensor([target]))
        sides = {"encoder": placed[0], "decoder": [0, *placed[1][:-1]]}
        routers = {name: switched(sides[name.split(".")[0]], begin - far, far, *reading) for name, reading in heard.items()}
        yield Reading(float(out.loss) * len(target), len(target), routers)


def switched(side: list[int], shift: int, far: int, mask: torch.Tensor, _: torch.Tensor, logits: torch.Tensor) -> Routed:
    """A Switch router's choices for the tokens that stand in the text: no sentinels, no `</s>`."""
    real = [at for at, t in enumerate(side) if t >= far]
    top, executed = logits[0].argmax(-1)[real], mask[0].sum(-1)[real] > 0
    load_ = np.bincount(top.numpy(), minlength=8)
    return [side[at] + shift for at in real], top.tolist(), executed.tolist(), load_


mixtral = (read_mixtral, lambda folder, weights: load(MixtralForCausalLM, folder, weights))
switch = (read_switch, lambda folder, weights: load(SwitchTransformersForConditionalGeneration, folder, weights))
