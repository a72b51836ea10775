"""Which tokens a router's rows are: what the calls around a router were given, as references and shapes.

Nothing here looks at a tensor's values: what must be read is handed on (`facts`), reduced on its device where it is large, and
read by sequences.py on the writing thread.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ...routers.calls import signature
from .caches import CACHES, Event, length
from .generating import Call
from .image_patches import image_facts
from .layouts import Layout, layout_of
from .packing import packing_facts
from .padding import mask_facts
from .requests import Piece

TIMES = {"timestep", "timesteps", "t", "sigma", "sigmas"}
LATENTS = ("hidden_states", "sample", "latents", "x", "noisy_latents")
INPUTS = {"input_ids", "decoder_input_ids", "inputs_embeds", "pixel_values"}


@dataclass(eq=False)
class Frame:
    """One open call. `past`: places that its cache held before (0 without one, None where it does not say)."""

    module: nn.Module
    inputs: dict[str, Any]
    parent: "Frame | None" = None
    output: Any = None
    python: FrameType | None = None  # of nn.Module's own call, while it is open
    past: int | Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.past = length(given_cache([self]))


@dataclass(eq=False)
class Stream:
    """The tokens that one frame's routers look at, as references: what the writing thread needs to name every row."""

    stack: str
    shape: tuple[int, int]  # (sequences, places per sequence)
    kind: str  # text | image | row | sequence, batch (decided of as a whole)
    generation: int  # calls with one number continue the same sequences
    continues: bool
    ids: Tensor | None = None
    facts: dict[str, Tensor] = field(default_factory=dict)  # small tensors that say which places are what
    past: int | None = None  # places in the cache before this call; where it is a tensor it is in facts
    trailing_pad: int | None = None  # a pad id whose trailing run is padding (decoders without a mask)
    infos: list[Any] | None = None
    call: Call | None = None  # the call of generate around it
    known: bool = False  # the ids stood in memory before the model ran its last forward: nobody generated them
    reruns: bool = False  # without a cache: a step of generate runs again what the last one ran
    made: bool = False  # the caller says that the model made what goes on with a cache
    media: dict[str, int] = field(default_factory=dict)  # vocabulary ids that stand for images, videos, sound
    merge: int = 1  # patches across that became one token
    layout: Layout | None = None  # where patches, text and padding lie in pictures
    requests: list[Piece] | None = None  # what a row of continuous batching holds
    units: int = 0  # sequences that began: one a row, or one a document
    packed: Any = None  # the row of each, where rows hold several
    events: list[Event] = field(default_factory=list)  # what happened to the cache since the last call
    note: str | None = None  # a sentence on what cannot be known of it


def name_text(
    calls: list[Frame], stack: str, shape: tuple[int, int], generation: tuple[int, bool], call: Call | None
) -> Stream:
    """A stream of text, without what its cache and its caller add. `generation`: its number, and whether it goes on."""
    stream = Stream(stack, shape, "text", *generation, token_ids(calls, shape, stack), call=call)
    past = calls[0].past if given_cache(calls[:1]) is not None else calls[-1].past
    past = 0 if stack == "encoder" else past
    stream.past = past if isinstance(past, int) else None
    masks, stream.note = mask_facts(_masks(calls, stack), shape, past)
    stream.facts = masks | ({"past": past} if torch.is_tensor(past) else {})
    if not stream.continues:
        stream.facts |= packing_facts(calls[-1].inputs, shape)
    kept: Any = calls[-1].inputs.get("logits_to_keep")
    if torch.is_tensor(kept) and kept.dim() == 1:
        stream.facts["kept"] = kept
    stream.trailing_pad = _pad(calls, stack)
    stream.media, stream.merge, facts = image_facts(calls, shape, call)
    stream.facts |= facts
    return stream


def name_images(calls: list[Frame], stack: str, rows: int, before: str = "") -> tuple[Stream, Frame | None]:
    """A stream of patches, or of rows that nothing names, without its number; and the call that was given the pictures.

    `before`: what a contract puts before a picture's patches.
    """
    for f in calls:
        pixels: Any = picture(f)
        if pixels is None:
            continue
        if (found := layout_of(f, pixels, rows, before)) is not None:
            layout, facts = found
            note = None if layout.known else _nowhere(f)
            shape = pixels.shape[0], layout.places
            return Stream("vision", shape, "image", -1, False, facts=facts, layout=layout, note=note), f
        if f.inputs.get("pixel_values") is not pixels and pixels.dim() > 2 and rows > 0 and rows % pixels.shape[0] == 0:
            shape = pixels.shape[0], rows // pixels.shape[0]  # packed latents, videos
            return Stream(stack, shape, "row", -1, False, note=_nowhere(f)), f
        grid = next((g for n in ("grid_thw", "image_grid_thw") if torch.is_tensor(g := f.inputs.get(n))), None)
        if grid is not None and pixels.dim() == 2 and pixels.shape[0] % rows == 0:
            config = getattr(f.module, "config", None)
            merge = getattr(getattr(config, "vision_config", config), "spatial_merge_size", 1)
            facts = {"grid": grid, "patches": torch.tensor(pixels.shape[0])}
            return Stream("vision", (1, rows), "image", -1, False, facts=facts, merge=merge), f
    given = next((f for f in calls if picture(f) is not None), None)
    return Stream(stack, (1, rows), "row", -1, False, note=None if given is None else _nowhere(given)), given


def _nowhere(frame: Frame) -> str:
    return (
        f"where the patches of {type(frame.module).__name__} lie cannot be known (no patch size of its own and no sizes that "
        "it is handed, img_shapes or img_sizes, explain how many rows its routers see): they are stored without frame, y and x"
    )


def in_order(streams: Iterable[Stream]) -> list[Stream]:
    """Each stream once; of those of the same pictures the one with most places first, so that it begins their sequences."""
    listed = list(dict.fromkeys(streams))
    first = {stream.generation: number for number, stream in reversed(list(enumerate(listed)))}
    return sorted(listed, key=lambda stream: (first[stream.generation], -stream.shape[1] if stream.layout is not None else 0))


def picture(frame: Frame) -> Tensor | None:
    """What a call was given of pictures: pixels, or the noisy latents (sequences, channels, ..., H, W) of a denoiser."""
    names = ("pixel_values",) if not TIMES & frame.inputs.keys() else ("pixel_values", *LATENTS)
    return next((value for name in names if torch.is_tensor(value := frame.inputs.get(name))), None)


def enters(module: nn.Module) -> bool:
    """Whether a module begins a stream: not a layer that is told the ids beside its hidden states."""
    names = set(parameters(module))
    return bool(INPUTS & names) and "hidden_states" not in names


def parameters(module: nn.Module) -> list[str]:
    """The names of what its forward takes."""
    return list(signature(module).parameters)


def given_cache(calls: list[Frame]) -> Any:
    """The key–value cache that a call was given, or one around it."""
    return next((f.inputs[name] for f in calls for name in CACHES if f.inputs.get(name) is not None), None)


def outwards(frame: Frame | None) -> list[Frame]:
    """A call and those around it."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.parent
    return found


def text_shape(calls: list[Frame], rows: int) -> tuple[int, int] | None:
    """(sequences, places) of the innermost ids or embeddings that have `rows` places (or any, for subsets: rows < 0)."""
    for f in calls:
        for name in ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds"):
            value: Any = f.inputs.get(name)
            if torch.is_tensor(value) and value.dim() >= 2 and (rows < 0 or value.shape[0] * value.shape[1] == rows):
                return value.shape[0], value.shape[1]
    return None


def token_ids(calls: list[Frame], shape: tuple[int, int], stack: str) -> Tensor | None:
    """The ids of that shape that a call was given, or one around it."""
    for f in calls:
        names = ("decoder_input_ids", "input_ids") if stack == "decoder" else ("input_ids",)
        for name in names:
            value: Any = f.inputs.get(name)
            if torch.is_tensor(value) and tuple(value.shape) == shape:
                return value
    return None


def decodes(frame: Frame, stack: str) -> bool:
    """Whether a call is of an encoder–decoder, of which `stack` is the decoder."""
    return stack == "decoder" and bool(getattr(getattr(frame.module, "config", None), "is_encoder_decoder", False))


def _masks(calls: list[Frame], stack: str) -> list[Any]:
    """Everything that was given as the mask of this stack, from the innermost call outwards."""
    found = []
    for f in calls:
        both = decodes(f, stack) and "decoder_attention_mask" in parameters(f.module)
        found.append(f.inputs.get("decoder_attention_mask" if both else "attention_mask"))
    return [mask for mask in found if mask is not None]


def _pad(calls: list[Frame], stack: str) -> int | None:
    root = calls[-1]
    pad = getattr(getattr(root.module, "config", None), "pad_token_id", None)
    return pad if decodes(root, stack) and isinstance(pad, int) else None
