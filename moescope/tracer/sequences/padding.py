"""The one rule of which places are padding, whatever form the mask has.

On the model's thread `mask_facts` reduces a mask on its device to small tensors, which `real_places` reads on the writing one.
Forms: (B, L) with 0 for padding, as long as what was fed, as the cache and what was fed, or as a cache that has room left; (B,
H, Q, K) or (B, Q, K), boolean (true: attended) or additive; a BlockMask of flex attention; a dictionary of these by kind of
layer. A boolean mask may say True for what is masked (Megatron), which is told by places that others attend and that would not
attend themselves. From a mask of pairs a place is padding if no query attends it but those that are padding themselves (such
rows attend nothing, or everything, where somebody has mended a softmax over nothing). Where padded places are let attend
themselves (the other way to mend it) a place that nothing else attends is padding if its id is the pad id, unless that also
ends texts.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

_MASKED = -1e4  # additive masks: at or below is not attended
_MOST = 1 << 28  # pairs of a block mask that are looked at

Shape: TypeAlias = tuple[int, int]
Past: TypeAlias = int | Tensor | None


def mask_facts(masks: list[Any], shape: Shape, past: Past) -> tuple[dict[str, Tensor], str | None]:
    """What says which places are padding, as tensors of `shape`, and a sentence where a mask cannot be read.

    `masks`: what was given, innermost call first. `past`: places in the cache before.
    """
    flat = [mask for given in masks for mask in _by_layer(given)]
    forms = sorted(flat, key=lambda m: not (torch.is_tensor(m) and m.dim() == 2))
    for mask in forms:
        facts = _facts(mask, shape, past)
        if facts is not None:
            return facts, None
    if not flat:
        return {}, None
    kinds = " and ".join(dict.fromkeys(_form(mask) for mask in flat))
    return {}, f"padding cannot be known from an attention mask of the form {kinds}, so every place was stored as a token"


def real_places(
    shape: Shape, ids: np.ndarray | None, arrays: Mapping[str, np.ndarray], trailing_pad: int | None, pads: np.ndarray
) -> np.ndarray:
    """(sequences, places) which are no padding; `pads` are ids that are nothing but padding."""
    if (mask := arrays.get("mask")) is not None:
        return mask > _MASKED if mask.dtype.kind == "f" and (mask < 0).any() else mask != 0
    if (attended := arrays.get("attended")) is not None:
        alone = arrays.get("alone")
        if ids is None or alone is None or not alone.any():
            return attended.astype(bool)
        return attended.astype(bool) & ~(alone & np.isin(ids, pads))
    real = np.ones(shape, bool)
    if ids is not None and trailing_pad is not None and shape[1] > 1:
        trailing = np.cumprod((ids == trailing_pad)[:, ::-1], 1)[:, ::-1].astype(bool)
        real &= ~trailing
        real[:, 0] = True
    return real


def _by_layer(mask: Any) -> list[Any]:
    """The masks of a dictionary, that of full attention first; None in it says that nothing is masked but the future."""
    if not isinstance(mask, dict):
        return [mask]
    names = sorted(mask, key=lambda name: name != "full_attention")
    return [mask[name] for name in names if mask[name] is not None]


def _form(mask: Any) -> str:
    return f"{type(mask).__name__} {tuple(mask.shape)}" if torch.is_tensor(mask) else type(mask).__name__


def _facts(mask: Any, shape: Shape, past: Past) -> dict[str, Tensor] | None:
    if torch.is_tensor(mask) and mask.dim() == 2:
        if mask.shape[0] not in (1, shape[0]) or mask.shape[1] < shape[1]:
            return None
        return {"mask": _columns(mask, shape[1], past).expand(shape)}
    pairs = _pairs(mask, shape)
    if pairs is None:
        return None
    own = _columns(pairs, shape[1], past)
    if torch.is_tensor(mask) and not mask.is_floating_point():
        masked = _says_masked(pairs, own)
        pairs, own = pairs ^ masked, own ^ masked
    return {"attended": own[:, 0]} if shape[1] == 1 else _reduced(pairs, own, past)


def _columns(mask: Tensor, places: int, past: Past) -> Tensor:
    """(..., places) the columns of what is fed now: behind the `past`, or the last ones where the mask has no more."""
    extent = mask.shape[-1]
    if extent == places:
        return mask
    if past is None:
        return mask[..., extent - places :]
    if isinstance(past, int):
        first = past if past + places <= extent else extent - places
        return mask[..., first : first + places]
    first_of = torch.clamp(past.reshape(()).to(mask.device), max=extent - places)
    return mask.index_select(-1, first_of + torch.arange(places, device=mask.device))


def _pairs(mask: Any, shape: Shape) -> Tensor | None:
    """(B, Q, K) which query attends which place, in any head."""
    if hasattr(mask, "mask_mod"):
        return _of_blocks(mask, shape)
    if not torch.is_tensor(mask) or mask.dim() not in (3, 4):
        return None
    pairs = mask > _MASKED if mask.is_floating_point() else mask.bool()
    pairs = pairs.any(1) if pairs.dim() == 4 else pairs
    if pairs.shape[1] != shape[1] or pairs.shape[2] < shape[1] or pairs.shape[0] not in (1, shape[0]):
        return None
    return pairs.expand(shape[0], -1, -1)


def _of_blocks(mask: Any, shape: Shape) -> Tensor | None:
    """A block mask keeps the function that it was made from."""
    places, extent = (int(n) for n in mask.seq_lengths)
    if places < shape[1] or extent < shape[1] or shape[0] * shape[1] * extent > _MOST or _silent(mask.mask_mod):
        return None
    device = mask.kv_num_blocks.device
    b, h, q, k = (torch.arange(n, device=device) for n in (shape[0], 1, shape[1], extent))
    try:
        pairs = mask.mask_mod(b[:, None, None, None], h[:, None, None], q[:, None], k)
    except Exception:  # a function for single numbers
        pairs = _one_by_one(mask.mask_mod, shape, extent, device)
    return torch.broadcast_to(pairs, (shape[0], 1, shape[1], extent))[:, 0].bool()


def _silent(function: Callable[..., Any]) -> bool:
    """Whether a block mask was made from blocks alone."""
    return getattr(function, "__name__", "") == "noop_mask"


def _one_by_one(function: Callable[..., Any], shape: Shape, extent: int, device: torch.device) -> Tensor:
    from torch.nn.attention.flex_attention import create_mask

    return create_mask(function, shape[0], 1, shape[1], extent, device=str(device))


def _reduced(pairs: Tensor, own: Tensor, past: Past) -> dict[str, Tensor]:
    """From (B, Q, K) and its columns (B, Q, Q): what is attended, what only itself attends, and the ends of its view."""
    places = own.shape[1]
    looks, void = _looks(pairs, own)
    attended = looks.any(1)
    facts = {"attended": attended}
    if isinstance(past, int) and past == 0:
        facts["alone"] = torch.diagonal(looks, dim1=1, dim2=2) & (looks.sum(1) == 1)
        numbers = looks.to(torch.uint8)
        facts["first"] = torch.where(void, places, numbers.argmax(-1)).to(torch.int32)
        facts["last"] = torch.where(void, -1, places - 1 - numbers.flip(-1).argmax(-1)).to(torch.int32)
    return facts


def _looks(pairs: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """(B, Q, Q) what rows attend that are no padding by themselves, and (B, Q) those that are."""
    ahead = own.triu(1).any(-1)
    nothing, everything = ~pairs.any(-1), pairs.all(-1)
    void = nothing | (everything & ahead & _later(~nothing & ~everything))
    return own & ~void[..., None], void


def _says_masked(pairs: Tensor, own: Tensor) -> Tensor:
    """() whether True stands for what is masked: else no place would attend itself, or some that others attend would not."""

    def astray(pairs: Tensor, own: Tensor) -> Tensor:
        looks, _ = _looks(pairs, own)
        return (looks.any(1) & ~torch.diagonal(looks, dim1=1, dim2=2)).any()

    nobody = ~torch.diagonal(own, dim1=1, dim2=2).any()
    return nobody | (astray(pairs, own) & ~astray(~pairs, ~own))


def _later(rows: Tensor) -> Tensor:
    """(B, Q) whether some later row is one of these."""
    behind = rows.flip(1).cumsum(1).flip(1)
    return (behind - rows.to(behind.dtype)) > 0
