"""Which half of classifier-free guidance a call of a pipeline's denoiser is, as the pipeline itself has it.

A pipeline of diffusers predicts with its prompts and with negative ones (or with none), in two calls or in one whose batch is
doubled; which is which is a line of its loop, and not the same in all. So it is read from the variables of the pipeline's
`__call__` while that runs: what the denoiser is given is the embeddings of the negative prompts, those of the prompts, or one
behind the other. Where guidance is off, or values do not tell the two apart, nothing is said.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import unwrap
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"
_WITHOUT = re.compile(r"(?:^|_)(?:negative|uncond|null)(?:_|$)")  # in names of what stands for no prompt
_SAID = ("do_classifier_free_guidance", "do_cfg", "do_true_cfg")

Half = str | list[str] | None
"""One word for the whole batch, or one for each sample of a doubled one; None where it is not known."""


class Guidance:
    """Of the calls of one pipeline, whose `__call__` is given as it was before anybody replaced it."""

    def __init__(self, pipe: Any, call: Callable[..., Any]) -> None:
        self._pipe = pipe
        self._code: CodeType | None = getattr(unwrap(call), "__code__", None)
        self._known: Any = WeakIdKeyDictionary()  # by tensor that the denoiser was given, which pipelines keep for all steps

    def half(self, inputs: Mapping[str, Any]) -> Half:
        """Of the denoiser's call that is running, with these inputs."""
        frame = self._running()
        if frame is None:
            return None
        found = dict(frame.f_locals)
        if not _guided(self._pipe, found):
            return None
        pairs = list(_pairs(found))
        halves = (self._of(value, pairs) for value in inputs.values() if torch.is_tensor(value))
        return next((half for half in halves if half is not None), None)

    def _running(self) -> FrameType | None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and (frame.f_code is not self._code or frame.f_locals.get("self") is not self._pipe):
            frame = frame.f_back
        return frame

    def _of(self, value: Tensor, pairs: list[tuple[Tensor, Tensor | None]]) -> Half:
        if value not in self._known:
            halves = (_compared(value, *pair) for pair in pairs)
            half = next((half for half in halves if half is not None), None)
            if half is None:
                return None  # another step may have another pair
            self._known[value] = half
        return self._known[value]  # type: ignore[no-any-return]


def _guided(pipe: Any, found: Mapping[str, Any]) -> bool:
    """Whether guidance is on, by the variables of the call or the pipeline's own word; on where neither says."""
    for said in (*(found.get(name) for name in _SAID), getattr(pipe, _SAID[0], None)):
        if isinstance(said, bool):
            return said
    scale = found.get("guidance_scale")
    return not isinstance(scale, int | float) or scale > 1


def _pairs(found: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """(what stands for no prompt, what stands for the prompt) among variables, by their names."""
    for name, without in found.items():
        if _WITHOUT.search(name) and torch.is_tensor(without):
            other = found.get(_WITHOUT.sub(lambda m: "_" if m[0].startswith("_") and m[0].endswith("_") else "", name))
            yield without, other if torch.is_tensor(other) else None


def _compared(value: Tensor, without: Tensor, prompt: Tensor | None) -> Half:
    """What a tensor is of the two. `prompt` may be the doubled one itself: many loops use its name again."""
    if without is prompt or not without.dim() or not len(without):
        return None
    if value is without:
        return UNCONDITIONAL
    count = len(without)
    if value.shape[1:] != without.shape[1:]:
        return CONDITIONAL if prompt is not None and value is prompt and len(prompt) == count else None
    if len(value) == count:
        return _told_apart(_equal(value, without), prompt is not None and _equal(value, prompt))
    if len(value) != 2 * count:
        return None
    first, second = _equal(value[:count], without), _equal(value[count:], without)
    half = _told_apart(first, second)
    words = (UNCONDITIONAL, CONDITIONAL) if half == UNCONDITIONAL else (CONDITIONAL, UNCONDITIONAL)
    return None if half is None else [words[0]] * count + [words[1]] * count


def _told_apart(without: bool, prompt: bool) -> str | None:
    return None if without == prompt else UNCONDITIONAL if without else CONDITIONAL


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one))
