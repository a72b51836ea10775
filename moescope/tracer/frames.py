"""Which inputs a router's rows come from: calls of the model and of its towers that are open when the router fires.

A frame is an open call of a module that takes token ids, embeddings or pixels (the model itself, an encoder, a vision tower).
A router belongs to the innermost one. Only references and shapes are read here; nothing looks at a tensor's values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts._calls import signature
from .caches import Caches, Event
from .calls import Calls, Frame

_INPUTS = {"input_ids", "decoder_input_ids", "inputs_embeds", "pixel_values"}
_CACHES = ("past_key_values", "past_key_value", "cache_params")


@dataclass(eq=False)
class Stream:
    """The tokens that one frame's routers look at, as references: what the writing thread needs to name every row."""

    stack: str
    shape: tuple[int, int]  # (sequences, places per sequence)
    kind: str  # text | image | row
    generation: int  # calls with one number continue the same sequences
    continues: bool
    ids: Tensor | None = None
    mask: Tensor | None = None
    trailing_pad: int | None = None  # a pad id whose trailing run is padding (decoders without a mask)
    infos: list[Any] | None = None
    decodes: bool = False  # the rows are tokens that the model made
    events: list[Event] = field(default_factory=list)  # what happened to the cache since the last call


class Frames:
    """The open calls around a router, and which tokens its rows are."""

    def __init__(
        self,
        model: nn.Module,
        sites: list[Any],
        opened: Callable[[], None],
        closed: Callable[[Frame], None],
        cut: Callable[[], None],
    ) -> None:
        self.model, self._opened = model, opened
        self._caches = Caches()
        self._fresh: set[int] = set()  # generations that began in the forward that is open
        self._calls = Calls(self._begin, closed, cut)
        self.handles = [h for m in _entrances(model, sites) for h in self._calls.hook(m)]

    def _begin(self) -> None:
        self._fresh.clear()
        self._opened()

    def mine(self) -> Frame | None:
        """The innermost open frame, if it is of the calling thread."""
        return self._calls.mine()

    def stream(self, frame: Frame, stack: str, rows: int, root_output: Any) -> Stream:
        """Name the tokens of `rows` rows of a router under `frame`."""
        calls = _outwards(frame)
        text = _text_shape(calls, rows)
        if text is None:
            return _image_or_rows(calls, stack, rows, self._caches.new())
        generation, continues = self._generation(calls, stack, root_output)
        ids = _ids(calls, text, stack)
        stream = Stream(stack, text, "text", generation, continues, ids, _mask(calls, text, stack), _pad(calls, stack))
        if continues:
            stream.decodes, stream.events = self._caches.decodes(generation, text[1]), self._caches.events(generation)
        return stream

    def going_on(self, frame: Frame, stack: str) -> int | None:
        """The number (Stream.generation) of the sequences that an open call goes on with, if an earlier forward began them."""
        return self._caches.known(_cache(_outwards(frame)), stack)

    def ids(self, frame: Frame, stack: str, shape: tuple[int, int]) -> Tensor | None:
        """The token ids of that shape that an open call was given."""
        return _ids(_outwards(frame), shape, stack)

    def fits(self, frame: Frame, shape: tuple[int, int]) -> bool:
        """Whether (sequences, places) are those of the ids or embeddings of an open call, if it has any."""
        calls = _outwards(frame)
        return _text_shape(calls, shape[0] * shape[1]) == shape or _text_shape(calls, -1) is None

    def places(self, frame: Frame, stack: str, rows: int) -> tuple[tuple[int, int], Tensor | None]:
        """(sequences, places) of a frame's rows, and which are no padding, without naming anything."""
        calls = _outwards(frame)
        shape = _text_shape(calls, rows)
        if shape is not None:
            return shape, _mask(calls, shape, stack)
        return _image_or_rows(calls, stack, rows, 0).shape, None

    def close(self) -> None:
        """Wait for an open forward of another thread, and undo what was wrapped."""
        self._calls.close()
        self._caches.close()

    def _generation(self, calls: list[Frame], stack: str, root_output: Any) -> tuple[int, bool]:
        """A number for the sequences of this call, and whether it goes on with those of an earlier one (same cache)."""
        cache = _cache(calls)
        known = self._caches.known(cache, stack)
        if known is not None and known not in self._fresh:
            return known, True
        number = self._caches.new()
        self._fresh.add(number)
        made = (
            cache if cache is not None else next((c for n in _CACHES if (c := getattr(root_output, n, None)) is not None), None)
        )
        if made is not None:
            self._caches.remember(made, stack, number)
        return number, False


def _entrances(model: nn.Module, sites: list[Any]) -> list[nn.Module]:
    """The model, and every module above a router that takes ids, embeddings or pixels."""
    names = dict(model.named_modules())
    above = {name.rsplit(".", i)[0] for site in sites for name in [site.name + ".x"] for i in range(1, name.count(".") + 1)}
    towers = [names[n] for n in sorted(above) if n in names and n and _enters(set(_parameters(names[n])))]
    return [model, *(m for m in towers if m is not model)]


def _enters(parameters: set[str]) -> bool:
    """Whether a forward with these parameters begins a stream: not a layer that is told the ids beside its hidden states."""
    return bool(_INPUTS & parameters) and "hidden_states" not in parameters


def _parameters(module: nn.Module) -> list[str]:
    return list(signature(module).parameters)


def _cache(calls: list[Frame]) -> Any:
    """The key–value cache that a call was given, or one around it."""
    return next((f.inputs[name] for f in calls for name in _CACHES if f.inputs.get(name) is not None), None)


def _outwards(frame: Frame | None) -> list[Frame]:
    """A call and those around it."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.parent
    return found


def _decodes(frame: Frame, stack: str) -> bool:
    return stack == "decoder" and bool(getattr(getattr(frame.module, "config", None), "is_encoder_decoder", False))


def _text_shape(calls: list[Frame], rows: int) -> tuple[int, int] | None:
    """(sequences, places) of the innermost ids or embeddings that have `rows` places (or any, for subsets: rows < 0)."""
    for f in calls:
        for name in ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds"):
            value: Any = f.inputs.get(name)
            if torch.is_tensor(value) and value.dim() >= 2 and (rows < 0 or value.shape[0] * value.shape[1] == rows):
                return value.shape[0], value.shape[1]
    return None


def _ids(calls: list[Frame], shape: tuple[int, int], stack: str) -> Tensor | None:
    for f in calls:
        names = ("decoder_input_ids", "input_ids") if stack == "decoder" else ("input_ids",)
        for name in names:
            value: Any = f.inputs.get(name)
            if torch.is_tensor(value) and tuple(value.shape) == shape:
                return value
    return None


def _mask(calls: list[Frame], shape: tuple[int, int], stack: str) -> Tensor | None:
    """The (sequences, >= places) mask that says which places are padding; the last places count."""
    for f in calls:
        both = _decodes(f, stack) and "decoder_attention_mask" in _parameters(f.module)
        names = ("decoder_attention_mask",) if both else ("attention_mask",)
        for name in names:
            value: Any = f.inputs.get(name)
            if torch.is_tensor(value) and value.dim() == 2 and value.shape[0] == shape[0] and value.shape[1] >= shape[1]:
                return value[:, value.shape[1] - shape[1] :]
    return None


def _pad(calls: list[Frame], stack: str) -> int | None:
    root = calls[-1]
    pad = getattr(getattr(root.module, "config", None), "pad_token_id", None)
    return pad if _decodes(root, stack) and isinstance(pad, int) else None


def _image_or_rows(calls: list[Frame], stack: str, rows: int, number: int) -> Stream:
    for f in calls:
        pixels: Any = f.inputs.get("pixel_values")
        if torch.is_tensor(pixels) and pixels.dim() == 4 and rows % pixels.shape[0] == 0:
            return Stream("vision", (pixels.shape[0], rows // pixels.shape[0]), "image", number, False)
    return Stream(stack, (1, rows), "row", number, False)
