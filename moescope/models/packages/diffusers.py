"""diffusers: HiDream (DiT-MoE's gate), NucleusMoE, CogVideoX and Wan 2.2, small."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

Ready = tuple[nn.Module, dict[str, Any]]


def hidream(side: int = 4) -> Ready:
    """diffusers' HiDream: one double-stream and one single-stream block, two images of side × side patches, texts of 3."""
    from diffusers import HiDreamImageTransformer2DModel

    torch.manual_seed(0)
    model = HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=4,
        caption_channels=[16, 16], text_emb_dim=16, num_routed_experts=4, num_activated_experts=2, axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8), llama_layers=[0, 1],
    ).eval()  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(2, 4, 2 * side, 2 * side),
        "timesteps": torch.tensor([900.0, 100.0]),
        "encoder_hidden_states_t5": torch.randn(2, 3, 16),
        "encoder_hidden_states_llama3": torch.randn(2, 2, 3, 16),
        "pooled_embeds": torch.randn(2, 16),
    }
    return model, inputs


def nucleus(use_sigmoid: bool = False) -> Ready:
    """diffusers' NucleusMoE: three layers of which two are routed, two images of 4 × 4 patches."""
    from diffusers import NucleusMoEImageTransformer2DModel

    torch.manual_seed(0)
    model = NucleusMoEImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=16, axes_dims_rope=(2, 2, 4), dense_moe_strategy="leave_first_block_dense", num_experts=4,
        moe_intermediate_dim=32, capacity_factors=1.0, use_sigmoid=use_sigmoid,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(("gate_up_proj", "down_proj")):
                tensor.normal_(std=0.3)
    inputs = {
        "hidden_states": torch.randn(2, 16, 16),
        "img_shapes": [(1, 4, 4)] * 2,
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "timestep": torch.tensor([0.9, 0.1]),
    }
    return model, inputs


def cogvideox(**settings: Any) -> Ready:
    """diffusers' CogVideoX: two blocks, two videos of two frames of 2 × 2 patches, texts of 5; `settings` of its own."""
    from diffusers import CogVideoXTransformer3DModel

    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(**{
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 8,
        "text_embed_dim": 16, "num_layers": 2, "sample_width": 4, "sample_height": 4, "sample_frames": 5, "patch_size": 2,
        "temporal_compression_ratio": 4, "max_text_seq_length": 5, **settings,
    }).eval()  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(2, 2, 4, 4, 4),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "timestep": torch.tensor([900, 100]),
    }
    return model, inputs


def wan() -> tuple[Any, dict[str, Any]]:
    """diffusers' Wan 2.2 with two tiny denoisers, and a call: two videos, four steps, boundary at timestep 800, guidance."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    def one(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
            freq_dim=32, ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        ).eval()  # fmt: skip

    pipe = WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=FlowMatchEulerDiscreteScheduler(), transformer=one(0),
        transformer_2=one(1), boundary_ratio=0.8,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(0)
    call = {
        "prompt_embeds": torch.randn(2, 5, 16, generator=random),
        "negative_prompt_embeds": torch.randn(2, 5, 16, generator=random),
        "latents": torch.randn(2, 4, 2, 4, 4, generator=random),
        "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 4, "output_type": "latent",
    }  # fmt: skip
    return pipe, call


def _whole(stack: ExitStack) -> Ready:
    """Wan's two denoisers as one model, and a forward of one of them."""
    from ..stages import first_call, staged

    pipe, call = wan()
    model = stack.enter_context(staged(pipe))
    return model, first_call(model, lambda: pipe(**{**call, "num_inference_steps": 1}))


READY = {
    "hidream": lambda _, __: hidream(),
    "nucleus": lambda _, __: nucleus(),
    "cogvideox": lambda _, __: cogvideox(),
    "wan": lambda _, stack: _whole(stack),
}
