"""What a tiny model reads: two sequences of twelve tokens, the first padded on the left, or two small pictures."""

import torch
from transformers import PreTrainedModel

BATCH, LENGTH, PADS = 2, 12, 4
Inputs = dict[str, torch.Tensor]


def inputs_for(model: PreTrainedModel, seed: int) -> Inputs:
    """Keyword arguments for `model(**inputs)`: ids int64 [2, 12] and their mask, or what the family reads instead."""
    generator = torch.Generator().manual_seed(seed)
    special = _SPECIAL.get(model.config.model_type, _text)
    return special(model, generator)


def _text(model: PreTrainedModel, generator: torch.Generator) -> Inputs:
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[0, :PADS] = 0
    inputs = {"input_ids": _ids(model, generator) * mask, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _ids(model, generator)
    return inputs


def _ids(model: PreTrainedModel, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(3, model.config.vocab_size, (BATCH, LENGTH), generator=generator)


def _text_and_image(model: PreTrainedModel, generator: torch.Generator) -> Inputs:
    kinds = torch.zeros(BATCH, LENGTH, dtype=torch.int32)
    kinds[:, 6:10] = 1  # four image tokens in each sequence
    return _text(model, generator) | {"moe_mm_token_type_ids": kinds}


def _embedded(model: PreTrainedModel, generator: torch.Generator) -> Inputs:
    inputs = _text(model, generator)
    embeds = torch.randn(*inputs.pop("input_ids").shape, model.config.hidden_size, generator=generator)
    return inputs | {"inputs_embeds": embeds.to(model.dtype)}


def _patches(model: PreTrainedModel, generator: torch.Generator) -> Inputs:
    grid = torch.tensor([[1, 4, 4], [1, 2, 4]])  # frames, rows and columns of patches in each picture
    width = model.config.num_channels * model.config.patch_size**2
    pixels = torch.randn(int(grid.prod(-1).sum()), width, generator=generator)
    return {"pixel_values": pixels.to(model.dtype), "grid_thw": grid}


def _pictures(model: PreTrainedModel, generator: torch.Generator) -> Inputs:
    pixels = torch.randn(BATCH, model.config.num_channels, *model.config.image_size, generator=generator)
    return {"pixel_values": pixels.to(model.dtype), "dataset_index": torch.tensor([0, 2])}


_SPECIAL = {
    "dots3_note_vision_encoder": _patches,
    "ernie4_5_vl_moe_text": _text_and_image,
    "qwen3_omni_moe_talker_text": _embedded,
    "vitpose_backbone": _pictures,
}
