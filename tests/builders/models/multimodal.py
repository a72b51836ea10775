"""Tiny models that see, and texts around images of so many patches."""

from functools import cache
from typing import Any

import torch
import transformers as hf
from torch import Tensor

IMAGE, VIDEO, BEGIN, END = 90, 91, 92, 93
TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}  # fmt: skip
EYES = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2,
    "spatial_merge_size": 2, "out_hidden_size": 32,
}  # fmt: skip
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}


def qwen() -> Any:
    """A tiny Qwen 3 VL."""
    text = TEXT | {"rope_parameters": TEXT["rope_parameters"] | {"mrope_section": [4, 2, 2]}}  # type: ignore[operator]
    eyes = EYES | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLMoeConfig(
        text_config=text, vision_config=eyes, vision_start_token_id=BEGIN, vision_end_token_id=END, **IDS
    )
    return hf.Qwen3VLMoeForConditionalGeneration(config).eval()


def glm() -> Any:
    """A tiny GLM 4.5 V."""
    text = TEXT | {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}
    config = hf.Glm4vMoeConfig(
        text_config=text, vision_config=EYES | {"image_size": 32}, image_start_token_id=BEGIN, image_end_token_id=END,
        video_start_token_id=94, video_end_token_id=95, **IDS,
    )  # fmt: skip
    return hf.Glm4vMoeForConditionalGeneration(config).eval()


def llama() -> Any:
    """A tiny Llama 4, whose pieces of images have no grid."""
    text = TEXT | {"intermediate_size": 16, "intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1}
    text |= {"interleave_moe_layer_step": 1, "rope_parameters": None}
    eyes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vision_output_dim": 16,
        "projector_input_dim": 16, "projector_output_dim": 16, "image_size": 32, "patch_size": 4, "pixel_shuffle_ratio": 0.5,
    }  # fmt: skip
    config = hf.Llama4Config(
        text_config=text, vision_config=eyes, image_token_index=IMAGE, boi_token_index=BEGIN, eoi_token_index=END
    )
    return hf.Llama4ForConditionalGeneration(config).eval()


def ask(grids: list[tuple[int, int]], merge: int = 2) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Ids of a text around images of so many patches, and the truth of every token: unit, id, y, x."""
    ids, truth = [5], list[tuple[Any, ...]]([("text", 5, None, None)])
    for number, (down, across) in enumerate(grids):
        ids += [BEGIN]
        truth += [("text", BEGIN, None, None)]
        cells = [(y, x) for y in range(down // merge) for x in range(across // merge)]
        ids += [IMAGE] * len(cells) + [END, 10 + number]
        truth += [("image", None, y, x) for y, x in cells] + [("text", END, None, None), ("text", 10 + number, None, None)]
    return ids, truth


def seen(grids: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Pixels of images of so many patches."""
    count = sum(h * w for h, w in grids)
    return {
        "pixel_values": torch.randn(count, 3 * 2 * 16, generator=torch.Generator().manual_seed(0)),
        "image_grid_thw": torch.tensor([[1, h, w] for h, w in grids]),
    }


@cache
def made_of(model: Any) -> Any:
    """One model of each kind for all tests."""
    torch.manual_seed(0)
    return model()
