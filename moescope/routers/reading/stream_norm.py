"""Norms that treat two streams apart (diffusers' CogVideoXLayerNormZero): text and video each have a shift, scale and gate.

`norm(video (B, V, H), text (B, S, H), condition (B, C))` returns both modulated, and the gates (B, 1, H) that what follows is
multiplied by. So a row's expert is its stream and its weight is a vector, of which the length is recorded; what the expert
gives is taken to be gate · modulated row. Rows are an image's text, then its video. Another decision is executed by
modulating a row as the other stream, and by gates (B, V, H) and (B, S, H) that differ from row to row.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ... import hooks
from ..base import Record, Site
from ..calls import signature
from ..expert_sum import expert_sum
from .router_call import RouterCall
from .stash import ratio
from .written_output import remember, written

_TAKES = ["hidden_states", "encoder_hidden_states", "temb"]
_CHUNK = (3, 0)  # where a stream's shift, scale and gate begin in the six that the condition gives: text, video


def modulates_streams(block: nn.Module) -> bool:
    """Whether a module is of this kind."""
    parts = {"silu", "linear", "norm"} <= block._modules.keys()
    return parts and list(signature(block).parameters) == _TAKES


class StreamNorm(RouterCall):
    """Expert 0 is the text's modulation, expert 1 the video's."""

    name = "static_streams"
    method = "forward"

    def site(self, name: str, block: nn.Module) -> Site:
        """A module of this kind: before the attention (norm1) or before the feed-forward (norm2)."""
        place = "attention" if name.endswith("norm1") else "ffn"
        names, rule = {0: "text", 1: "video"}, {"weight": "length of the stream's gate vector"}
        return Site(
            name, block, None, None, self, 2, "static", "vector", score="none", place=place, before="text", expert_names=names,
            rule=rule,
        )  # fmt: skip

    def read(self, site: Site, args: tuple[Any, ...], output: Any) -> Record:
        """By stream, unless an edit made this output."""
        if (made := written(output[0])) is not None:
            return Record(site, made.experts, made.weights)
        number = joined(*(torch.full_like(part[..., :1], stream) for stream, part in ((1, output[0]), (0, output[1]))))
        return Record(site, number.long(), gates(output).norm(dim=-1, keepdim=True))

    def write(self, site: Site, args: tuple[Any, ...], output: Any, experts: Tensor, weights: Tensor) -> Any:
        """Modulate rows as the stream that is wanted, with gates of the wanted length."""
        before = written(output[0])
        own = output if before is None else before.own
        was, (hidden, condition) = self.read(site, args, own), inputs_of(args)
        rows, gate = joined(own[0], own[1]), gates(own) * ratio(weights, was.weights)
        for number in range(2):
            row = ((experts == number) & (was.experts != number)).squeeze(-1)
            if bool(row.any()):
                rows[row], direction = self._modulated(site, number, hidden[row], condition[row])
                gate[row] = direction * weights[row]
        text = own[1].shape[1]
        split = [t.view(len(own[0]), -1, t.shape[-1]) for t in (rows, gate.masked_fill(experts < 0, 0))]
        made = split[0][:, text:].contiguous(), split[0][:, :text], split[1][:, text:], split[1][:, :text]
        remember(made[0], experts, weights, own)
        return made

    def watch(self, site: Site, keep: Callable[[tuple[Any, ...], Tensor], None]) -> list[RemovableHandle]:
        """Rows of both streams with their condition, and gate · modulated row."""

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = inputs_of((*args, *kwargs.values()))
            keep(tuple(t.detach() for t in given), (gates(output) * joined(output[0], output[1])).detach())

        return [hooks.after(site.block, after, kwargs=True, first=True)]

    def recompute(self, site: Site, inputs: tuple[Any, ...], record: Record) -> Tensor:
        """Each stream's modulation of the rows that have it, along the direction of its gate, times the recorded length."""
        at = torch.arange(len(inputs[0]), device=inputs[0].device)[:, None]

        def one(number: int, row: Tensor) -> Tensor:
            made, direction = self._modulated(site, number, *(t[row[:, 0]] for t in inputs))
            return made * direction

        return torch.zeros_like(inputs[0], dtype=torch.float32) + expert_sum(at, record, one)

    def _modulated(self, site: Site, number: int, hidden: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(n, H) rows as one stream modulates them, and its gate's direction (n, H)."""
        block: Any = site.block
        six = block.linear.forward(block.silu.forward(condition)).chunk(6, -1)
        shift, scale, gate = six[_CHUNK[number] : _CHUNK[number] + 3]
        return block.norm.forward(hidden) * (1 + scale) + shift, F.normalize(gate, dim=-1)


def joined(video: Tensor, text: Tensor) -> Tensor:
    """(B · (S + V), H): of each image its text, then its video."""
    return torch.cat([text, video], 1).flatten(0, 1)


def gates(output: Any) -> Tensor:
    """(B · (S + V), H) the gate of every row."""
    video, text, gate, text_gate = output
    return joined(gate.expand_as(video), text_gate.expand_as(text))


def inputs_of(args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Rows (B · (S + V), H) of both streams, and the condition (B · (S + V), C) of each."""
    hidden = joined(*args[:2])
    return hidden, args[2].repeat_interleave(len(hidden) // len(args[2]), 0)
