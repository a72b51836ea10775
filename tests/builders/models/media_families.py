"""Tiny random models that see, hear and watch, each with the processor classes of its family, made offline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from moescope.models import tiny

IDS = {  # after 256 bytes
    "<pad>": 256, "<s>": 257, "</s>": 258, "<image>": 259, "<video>": 260, "<audio>": 261, "<begin>": 262, "<end>": 263,
    "<vbegin>": 264, "<vend>": 265, "<abegin>": 266, "<aend>": 267, "<patch>": 268, "<|tile_x_separator|>": 269,
    "<|tile_y_separator|>": 270, "<user>": 271, "<assistant>": 272,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 288, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 2048, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258,
}  # fmt: skip
MROPE: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}}
EYES = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
    "out_hidden_size": 32,
}  # fmt: skip
DEEPSEEK = TEXT | {
    "n_routed_experts": 8, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 0,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_nope_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
TURNS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }}{% else %}BEGIN<{{ p.type }}>END{% endif %}{% endfor %}{% endif %}</s>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A model and its processor, and what of pictures, video and sound it takes."""

    model: Callable[[], Any]
    processor: Callable[[], Any]
    takes: tuple[str, ...]


def tokenizer(spelled: Any = None, **names: str) -> Any:
    """One token a byte; `names`: what a family calls its special tokens, `spelled`: how it writes them, where that is fixed."""
    alphabet = {symbol: place for place, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([(spelled or {}).get(token, token) for token in IDS])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=names
    )


def template(begin: str = "", end: str = "", audio: tuple[str, str] = ("", "")) -> str:
    """A chat template that puts a picture between two tokens."""
    return TURNS.replace("BEGIN", f"{{% if p.type == 'audio' %}}{audio[0]}{{% else %}}{begin}{{% endif %}}").replace(
        "END", f"{{% if p.type == 'audio' %}}{audio[1]}{{% else %}}{end}{{% endif %}}"
    )


SEEN = {"image_token": "<image>", "video_token": "<video>", "vision_start_token": "<begin>", "vision_end_token": "<end>"}
EDGES = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
CUT = {"patch_size": 4, "merge_size": 2}


def _qwen() -> Any:
    eyes = EYES | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    ids = {"image_token_id": 259, "video_token_id": 260, "vision_start_token_id": 262, "vision_end_token_id": 263}
    return hf.Qwen3VLMoeForConditionalGeneration(
        hf.Qwen3VLMoeConfig(text_config=TEXT | MROPE, vision_config=eyes | {"temporal_patch_size": 2}, **ids)
    )


def _qwen_sees() -> Any:
    return hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(**CUT, size=EDGES),
        tokenizer(**SEEN),
        hf.Qwen3VLVideoProcessor(**CUT, size={"shortest_edge": 256, "longest_edge": 4 * 4096}),
        chat_template=template("<begin>", "<end>"),
    )


def _glm() -> Any:
    text = TEXT | {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
    ids = {
        "image_token_id": 259, "video_token_id": 260, "image_start_token_id": 262, "image_end_token_id": 263,
        "video_start_token_id": 264, "video_end_token_id": 265,
    }  # fmt: skip
    eyes = EYES | {"image_size": 32, "temporal_patch_size": 2}
    return hf.Glm4vMoeForConditionalGeneration(hf.Glm4vMoeConfig(text_config=text, vision_config=eyes, **ids))


def _glm_sees() -> Any:
    spelled = {
        "<begin>": "<|begin_of_image|>", "<end>": "<|end_of_image|>", "<vbegin>": "<|begin_of_video|>",
        "<vend>": "<|end_of_video|>",
    }  # fmt: skip
    words = tokenizer(spelled, image_token="<image>", video_token="<video>")
    either = "{{% if p.type == 'video' %}}{}{{% else %}}{}{{% endif %}}"
    edges = either.format(spelled["<vbegin>"], spelled["<begin>"]), either.format(spelled["<vend>"], spelled["<end>"])
    return hf.Glm4vProcessor(
        hf.Glm4vImageProcessor(**CUT, size=EDGES), words,
        hf.Glm4vVideoProcessor(**CUT, size=EDGES | {"longest_edge": 4 * 4096}),
        chat_template=template(*edges),
    )  # fmt: skip


def _ernie() -> Any:
    text = TEXT | {
        "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": [16, 12], "moe_num_shared_experts": 1,
        "mlp_layer_types": ["sparse", "sparse"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
    }  # fmt: skip
    ids = {
        "image_token_id": 259, "video_token_id": 260, "image_start_token_id": 262, "image_end_token_id": 263,
        "video_start_token_id": 264, "video_end_token_id": 265,
    }  # fmt: skip
    eyes = {name: value for name, value in EYES.items() if name != "out_hidden_size"}
    return hf.Ernie4_5_VLMoeForConditionalGeneration(hf.Ernie4_5_VLMoeConfig(text_config=text, vision_config=eyes, **ids))


def _ernie_sees() -> Any:
    names = SEEN | {"image_start_token": "<begin>", "image_end_token": "<end>"}
    words = tokenizer(**names, video_start_token="<vbegin>", video_end_token="<vend>")
    return hf.Ernie4_5_VLMoeProcessor(
        hf.Ernie4_5_VLMoeImageProcessor(**CUT, size=EDGES),
        words,
        hf.Ernie4_5_VLMoeVideoProcessor(**CUT, size=EDGES | {"longest_edge": 4 * 4096}, draw_on_frames=False),
        chat_template=template("<begin>", "<end>"),
    )


def _omni() -> Any:
    eyes = EYES | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0], "temporal_patch_size": 2}
    ears = {
        "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "d_model": 16,
        "output_dim": 32, "downsample_hidden_size": 8, "max_source_positions": 100,
    }  # fmt: skip
    ids = {"image_token_id": 259, "video_token_id": 260, "audio_token_id": 261, "audio_start_token_id": 266}
    config = hf.models.qwen3_omni_moe.configuration_qwen3_omni_moe.Qwen3OmniMoeThinkerConfig(
        text_config=TEXT | MROPE, vision_config=eyes, audio_config=ears, vision_start_token_id=262, **ids
    )
    return hf.Qwen3OmniMoeThinkerForConditionalGeneration(config)


def _omni_senses() -> Any:
    names = SEEN | {"audio_token": "<audio>", "audio_bos_token": "<abegin>", "audio_eos_token": "<aend>"}
    words = tokenizer(**names, vision_bos_token="<begin>", vision_eos_token="<end>")
    found = hf.Qwen3OmniMoeProcessor(
        hf.Qwen2VLImageProcessor(**CUT, size=EDGES),
        hf.Qwen2VLVideoProcessor(**CUT, size=EDGES | {"longest_edge": 4 * 4096}),
        hf.WhisperFeatureExtractor(feature_size=16, sampling_rate=16000, chunk_length=2, n_fft=400),
        words,
        chat_template=template("<begin>", "<end>", ("<abegin>", "<aend>")),
    )
    found.videos_kwargs = {"size": {"shortest_edge": 256, "longest_edge": 4 * 4096}}
    return found


def _kimi() -> Any:
    eyes = {
        "patch_size": 4, "pos_emb_height": 16, "pos_emb_width": 16, "pos_emb_time": 4, "num_attention_heads": 2,
        "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16,
    }  # fmt: skip
    ids = {"image_token_id": 259, "video_token_id": 260, "vision_start_token_id": 262, "vision_end_token_id": 263}
    text = {name: value for name, value in DEEPSEEK.items() if name != "head_dim"} | {"model_type": "deepseek_v3"}
    return hf.Kimi_K25ForConditionalGeneration(
        hf.Kimi_K25Config(text_config=text, vision_config=eyes, projection_hidden_size=16, **ids)
    )


def _kimi_sees() -> Any:
    return hf.Kimi_K25Processor(
        hf.Kimi_K25ImageProcessor(**CUT), tokenizer(**SEEN), hf.Kimi_K25VideoProcessor(**CUT),
        chat_template=template("<begin>", "<end>"),
    )  # fmt: skip


def _llama() -> Any:
    text = TEXT | {"intermediate_size": 16, "intermediate_size_mlp": 32, "num_local_experts": 4, "num_experts_per_tok": 1}
    eyes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vision_output_dim": 16,
        "projector_input_dim": 16, "projector_output_dim": 16, "image_size": 16, "patch_size": 4, "pixel_shuffle_ratio": 0.5,
    }  # fmt: skip
    config = hf.Llama4Config(
        text_config=text | {"interleave_moe_layer_step": 1}, vision_config=eyes, image_token_index=268, boi_token_index=262,
        eoi_token_index=263,
    )  # fmt: skip
    return hf.Llama4ForConditionalGeneration(config)


def _llama_sees() -> Any:
    words = tokenizer({
        "<image>": "<|image|>", "<begin>": "<|image_start|>", "<end>": "<|image_end|>", "<patch>": "<|patch|>",
    })  # fmt: skip
    return hf.Llama4Processor(
        hf.Llama4ImageProcessor(size={"height": 16, "width": 16}, max_patches=4), words, patch_size=4, pixel_shuffle_ratio=0.5,
        chat_template=template().replace("<{{ p.type }}>", "<|image|>"),
    )  # fmt: skip


def _aria() -> Any:
    eyes = {
        "model_type": "idefics3_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 490, "patch_size": 70,
    }  # fmt: skip
    text = TEXT | {"moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 1, "model_type": "aria_text"}
    config = hf.AriaConfig(
        text_config=text, vision_config=eyes, image_token_index=259, projector_patch_to_query_dict={49: 6, 196: 9},
    )  # fmt: skip
    return hf.AriaForConditionalGeneration(config)


def _aria_sees() -> Any:
    return hf.AriaProcessor(
        hf.AriaImageProcessor(max_image_size=490), tokenizer(image_token="<image>"), size_conversion={490: 6, 980: 9},
        chat_template=template(),
    )  # fmt: skip


def _intern() -> Any:
    eyes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": [16, 16],
        "patch_size": [4, 4],
    }  # fmt: skip
    text = TEXT | {"model_type": "qwen3_moe"}
    config = hf.InternVLConfig(text_config=text, vision_config=eyes, image_token_id=259, image_seq_length=4)
    return hf.InternVLForConditionalGeneration(config)


def _intern_sees() -> Any:
    words = tokenizer(
        start_image_token="<begin>", end_image_token="<end>", context_image_token="<image>", video_token="<video>"
    )
    return hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size={"height": 16, "width": 16}, crop_to_patches=True, max_patches=6, min_patches=1),
        words,
        hf.InternVLVideoProcessor(size={"height": 16, "width": 16}),
        image_seq_length=4,
        chat_template=template(),
    )


def _llava() -> Any:
    eyes = {
        "model_type": "clip_vision_model", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "image_size": 24, "patch_size": 4, "projection_dim": 16,
    }  # fmt: skip
    text = TEXT | {"model_type": "mixtral", "num_local_experts": 8}
    config = hf.LlavaConfig(text_config=text, vision_config=eyes, image_token_index=259, image_seq_length=36)
    return hf.LlavaForConditionalGeneration(config)


def _llava_sees() -> Any:
    pixels = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    return hf.LlavaProcessor(
        hf.CLIPImageProcessor(**pixels), tokenizer(image_token="<image>"), patch_size=4,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template(),
    )  # fmt: skip


def _dots() -> Any:
    """Routers in the tower for pictures as well."""
    text, eyes = (tiny.build(f"dots3_note_{part}").model.config.to_dict() for part in ("text", "vision_encoder"))
    text |= {"vocab_size": 288, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    ears = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "feature_size": 16,
        "downsample_hidden_size": 8, "head_dim": 8, "adapter_input_size": 16, "adapter_out_dim": 32,
    }  # fmt: skip
    ids = {"image_token_id": 259, "video_token_id": 260, "audio_token_id": 261}
    torch.manual_seed(0)
    config = hf.Dots3NoteConfig(text_config=text, vision_config=eyes | {"adapter_out_dim": 32}, audio_config=ears, **ids)
    return hf.Dots3NoteForConditionalGeneration(config)


def _dots_sees() -> Any:
    spelled = {"<image>": "<|imgpad|>", "<video>": "<|video_pad|>", "<audio>": "<|audio_comp_pad|>"}
    return hf.Dots3NoteProcessor(
        hf.Qwen2VLImageProcessor(**CUT, temporal_patch_size=1, size=EDGES), tokenizer(spelled),
        hf.Qwen3VLVideoProcessor(**CUT), hf.Dots3NoteFeatureExtractor(feature_size=16),
        chat_template=template("<begin>", "<end>").replace("<{{ p.type }}>", "<|imgpad|>"),
    )  # fmt: skip


FAMILIES = {
    "qwen3_vl_moe": Family(_qwen, _qwen_sees, ("image", "video")),
    "glm4v_moe": Family(_glm, _glm_sees, ("image", "video")),
    "ernie4_5_vl_moe": Family(_ernie, _ernie_sees, ("image", "video")),
    "qwen3_omni_moe": Family(_omni, _omni_senses, ("image", "video", "audio")),
    "kimi_k25": Family(_kimi, _kimi_sees, ("image",)),  # of films Transformers itself loses frames
    "dots3_note": Family(_dots, _dots_sees, ("image",)),
    "llama4": Family(_llama, _llama_sees, ("image",)),
    "aria": Family(_aria, _aria_sees, ("image",)),
    "internvl": Family(_intern, _intern_sees, ("image", "video")),
    "llava": Family(_llava, _llava_sees, ("image",)),
}
PLAIN = ("aria", "llava")  # their processors need no torchvision


def made(name: str) -> tuple[Any, Any]:
    """The model of a family, with random weights that do not change, and its processor."""
    torch.manual_seed(0)
    family = FAMILIES[name]
    return family.model().eval(), family.processor()
