"""What the model made, and what it was handed.

Inside `generate` this is known: the ids (or embeddings) handed to it are the prompt, in whatever chunks they are run, and what
stands behind them was generated: one token a step, beams, drafts. The call is found on the Python stack, so that the model is
not touched.

In a loop of the caller's own it has to be told from the ids. One id a row that goes on with a cache was generated if it is a
first choice of the model's own logits, and if it did not stand unchanged in the tensor of the step before (a slice of a text is
no news). More than one id at once is a prompt; its first id may be the last that the loop before it made. What cannot be known:
ids that a loop of the caller's own samples look like text that is fed id by id, and a text fed in new tensors, id by id, whose
next token happens to be the model's first choice looks like a greedy loop. `Tracer.generating()` says it.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

GRIDS = ("image_grid_thw", "video_grid_thw", "image_sizes")
_DEPTH = 60  # Python frames that are looked through
_FILE = "generation/utils.py"


def stops(model: Any) -> tuple[set[int], set[int]]:
    """Ids that end a generated sequence, and ids that `generate` then feeds in its place while others go on."""
    return stops_of(*(getattr(model, name, None) for name in ("generation_config", "config")))


def stops_of(*settings: Any) -> tuple[set[int], set[int]]:
    """The same by the first of some configurations that says it."""
    ends, pads = (
        next(
            (set(v if isinstance(v, list) else [v]) for s in settings if isinstance(v := getattr(s, name, None), int | list)),
            set(),
        )
        for name in ("eos_token_id", "pad_token_id")
    )
    return ends, pads or ends


@dataclass(eq=False)
class Call:
    """One call of generate. `prompt`: places handed in, padding included; `whole`: they begin where the cache began.

    `stops`: as of a model, by the arguments of this call.
    """

    prompt: int | None
    whole: bool
    stops: tuple[set[int], set[int]]
    pictures: dict[str, Any] = field(
        default_factory=dict
    )  # grids and pixels' sizes handed in, by name: it encodes images first
    numbers: dict[str, int] = field(default_factory=dict)  # generations of steps without a cache, by stack
    entered: set[int] = field(default_factory=set)  # generations that have run in it


class Calls:
    """The call of generate that is open; one at a time is remembered."""

    def __init__(self) -> None:
        self._known: tuple[int, Any, Call] | None = None

    def around(self, model: nn.Module) -> Call | None:
        """The innermost call of generate around this forward, if it is of `model` or of a part of it or around it."""
        here = sys._getframe(1)
        for _ in range(_DEPTH):
            if here is None:
                return None
            if here.f_code.co_name == "generate" and here.f_code.co_filename.replace("\\", "/").endswith(_FILE):
                return self._call(id(here), here.f_locals)
            here = here.f_back  # type: ignore[assignment]
        return None

    def _call(self, number: int, said: dict[str, Any]) -> Call:
        own = said.get("generation_config")  # a copy of its own in every call, so that two are never taken for one
        if self._known is None or self._known[0] != number or self._known[1] is not own:
            self._known = number, own, _read(said)
        return self._known[2]


def _read(said: dict[str, Any]) -> Call:
    kwargs = said.get("model_kwargs") or said.get("kwargs") or {}
    given = (said.get("input_ids"), kwargs.get("input_ids"), said.get("inputs"))
    ids: Any = next((v for v in given if torch.is_tensor(v)), None)
    places = ids.shape[1] if ids is not None and ids.dim() > 1 else None
    embeds: Any = said.get("inputs_tensor") if said.get("model_input_name") == "inputs_embeds" else kwargs.get("inputs_embeds")
    if torch.is_tensor(embeds):
        places = max(places or 0, embeds.shape[1])
    mask: Any = kwargs.get("attention_mask")
    length = mask.shape[1] if torch.is_tensor(mask) else getattr(said.get("generation_config"), "_mask_length", places)
    handed = said.get("kwargs") or {}
    pictures = {name: handed[name] for name in GRIDS if torch.is_tensor(handed.get(name))}
    pixels: Any = handed.get("pixel_values")
    if torch.is_tensor(pixels) and pixels.dim() > 3:
        pictures["pixels"] = tuple(pixels.shape[-2:])
    return Call(places, torch.is_tensor(embeds) or length == places, stops_of(said.get("generation_config")), pictures)


@dataclass(eq=False)
class Choice:
    """What the last forward of a cache left: logits (B, V) of each row's last place, and the ids it was fed."""

    logits: Tensor | None
    ids: Tensor | None
    version: int | None

    def facts(self, ids: Tensor) -> dict[str, Tensor]:
        """Of ids (B, Q): `chosen` (B,), whether the first is the model's first choice."""
        if self.logits is None or self.logits.shape[0] != ids.shape[0] or ids.device != self.logits.device:
            return {}
        first = self.logits.gather(1, ids[:, :1].clamp(0, self.logits.shape[1] - 1))
        return {"chosen": (first >= self.logits.amax(1, keepdim=True))[:, 0]}

    def stood(self, ids: Tensor) -> bool:
        """Whether these ids and the last ones are pieces of one tensor, to which nothing was written since."""
        if self.ids is None or self.version is None or _version(ids) != self.version:
            return False
        return bool(ids.untyped_storage()._cdata == self.ids.untyped_storage()._cdata)


def choice(output: Any, ids: Tensor | None, mask: Tensor | None) -> Choice:
    """From a forward's output, its ids, and its mask (B, Q) if there is one."""
    version = _version(ids) if ids is not None else None
    logits: Any = getattr(output, "logits", None)
    if not torch.is_tensor(logits) or logits.dim() != 3 or ids is None or logits.shape[0] != ids.shape[0]:
        return Choice(None, ids, version)
    return Choice(_last(logits.detach(), ids.shape[1], mask), ids, version)


def _last(logits: Tensor, places: int, mask: Tensor | None) -> Tensor:
    count = logits.shape[1]
    if count == 1:
        return logits[:, 0]
    if mask is None:
        return logits[:, -1].clone()
    number = torch.arange(1, places + 1, device=mask.device)
    last = (mask.bool() * number).argmax(1) - (places - count)
    return logits[torch.arange(len(logits), device=logits.device), last.clamp(0, count - 1).to(logits.device)]


def _version(ids: Tensor) -> int | None:
    try:
        return ids._version
    except RuntimeError:  # made in inference mode
        return None
