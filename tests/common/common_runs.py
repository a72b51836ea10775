"""One family run twice in step, alone and under a Tracer: what users do with a model, and all that may not differ."""

import copy
import io
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import set_seed

Inputs = dict[str, Tensor]
Step = Callable[[Any, Inputs], Any]
"""Does something with a model; gives whatever it answered."""

_PLAIN = bool | int | float | str | None


def steps() -> dict[str, Step]:
    """By name, in the order in which they run; training changes the weights for what comes after."""
    makers: dict[str, Step] = {
        "padded left": lambda m, x: m(**x),
        "padded right": lambda m, x: m(**_right(x)),
        "no mask": lambda m, x: m(**_without(x, "attention_mask")),
        "embeddings": _embedded,
        "all outputs": lambda m, x: m(**x, **_labels(x), output_hidden_states=True, output_router_logits=True),
        "all outputs in training": lambda m, x: m.train()(**x, output_attentions=True, output_router_logits=True),
        "train": _train,
        "train with router loss": lambda m, x: _train(m, x, output_router_logits=True),
        "train in bfloat16": _autocast,
        "accumulate": _accumulate,
        "checkpointing": lambda m, x: _checkpointed(m, x, False),
        "checkpointing, reentrant": lambda m, x: _checkpointed(m, x, True),
        "after training": lambda m, x: m(**x),
        "greedy": lambda m, x: _generate(m, x, do_sample=False),
        "sampled": lambda m, x: _generate(m, x, do_sample=True, num_return_sequences=2),
        "beams": lambda m, x: _generate(m, x, do_sample=False, num_beams=3),
        "no cache": lambda m, x: _generate(m, x, do_sample=False, use_cache=False),
        "by hand": _by_hand,
        "static cache": lambda m, x: _generate(m, x, do_sample=False, cache_implementation="static"),
        "drafts": lambda m, x: m.generate(x["input_ids"][1:], max_new_tokens=6, do_sample=False, prompt_lookup_num_tokens=3),
        "weights lent": _lent,
        "bfloat16 and back": _narrow,
    }
    again = ("padded left", "padded right", "no mask", "train", "greedy")
    return makers | {f"{name}, sdpa": partial(_by_sdpa, makers[name]) for name in again}


def _by_sdpa(step: Step, model: Any, x: Inputs) -> Any:
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        return step(model, x)
    finally:
        model.set_attn_implementation(before)


def _right(x: Inputs) -> Inputs:
    """The same texts with their padding behind them."""
    return {
        name: torch.stack([row.roll(-int((m == 0).sum())) for row, m in zip(t, x["attention_mask"])]) for name, t in x.items()
    }


def _without(x: Inputs, name: str) -> Inputs:
    return {key: value for key, value in x.items() if key != name}


def _labels(x: Inputs) -> Inputs:
    ids = x.get("decoder_input_ids", x["input_ids"])
    return {"labels": ids.masked_fill(ids == 0, -100)}


def _embedded(model: Any, x: Inputs) -> Any:
    return model(**_without(x, "input_ids"), inputs_embeds=model.get_input_embeddings()(x["input_ids"]))


def _train(model: Any, x: Inputs, **named: Any) -> Any:
    """One step of AdamW."""
    output = model.train()(**x, **_labels(x), **named, use_cache=False)
    output.loss.backward()
    torch.optim.AdamW(model.parameters(), 1e-3).step()
    return output


def _autocast(model: Any, x: Inputs) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return _train(model, x)


def _accumulate(model: Any, x: Inputs) -> Any:
    """Two micro-batches, one step."""
    losses = []
    for row in range(2):
        micro = {name: t[row : row + 1] for name, t in x.items()}
        losses.append(model.train()(**micro, **_labels(micro), use_cache=False).loss)
        losses[-1].backward()
    torch.optim.SGD(model.parameters(), 1e-2).step()
    return losses


def _checkpointed(model: Any, x: Inputs, reentrant: bool) -> Any:
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    try:
        return _train(model, x)
    finally:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()


def _generate(model: Any, x: Inputs, **named: Any) -> Any:
    given = _without(x, "decoder_input_ids")
    return model.generate(
        **given, **named, max_new_tokens=4, output_scores=True, return_dict_in_generate=True, output_logits=True
    )


def _by_hand(model: Any, x: Inputs) -> list[Any]:
    """A prompt, then two tokens one at a time, on a cache that the caller keeps."""
    outputs, x = [model(**x, use_cache=True)], dict(x)
    grows = [] if model.config.is_encoder_decoder else ["attention_mask"]
    name = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    for token in (5, 6):
        x[name] = torch.full_like(x[name][:, :1], token)
        x |= {mask: torch.cat([x[mask], torch.ones_like(x[mask][:, :1])], 1) for mask in grows}
        outputs.append(model(**x, past_key_values=outputs[-1].past_key_values, use_cache=True))
    return outputs


def _lent(model: Any, x: Inputs) -> Any:
    """Other weights for one call."""
    return torch.func.functional_call(model, {name: p * 0.5 for name, p in model.named_parameters()}, (), x)


def _narrow(model: Any, x: Inputs) -> Any:
    output = model.to(torch.bfloat16)(**x)
    model.to(torch.float32)
    return output


def copies() -> dict[str, Callable[[Any], Any]]:
    """Ways to a second model; what runs there is no part of a trace of the first."""
    return {
        "deep copy": copy.deepcopy,
        "moving average": lambda model: AveragedModel(model).module,
        "whole model saved": _saved,
        "checkpoint": _checkpoint,
        "weights loaded": _loaded,
    }


def _saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _checkpoint(model: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, attn_implementation="eager").eval()


def _loaded(model: Any) -> Any:
    other = type(model)(model.config).eval()
    other.load_state_dict(model.state_dict())
    return other


def graphs() -> dict[str, Step]:
    """Ways to have Python run only once."""
    return {"export": _export, "whole graph": _compiled}


def _export(model: Any, x: Inputs) -> Any:
    with torch.no_grad():
        return torch.export.export(model, (), kwargs=x).module()(**x)


def _compiled(model: Any, x: Inputs) -> Any:
    torch._dynamo.reset()
    with torch.no_grad():
        return torch.compile(model, fullgraph=True, backend="eager")(**x)


@dataclass
class Ended:
    """All that one step left: names and what they stood for, in a form that compares bits."""

    answers: dict[str, Any]
    failed: str = ""


def run(step: Step, model: Any, inputs: Inputs) -> Ended:
    """Take one step from equal random states; a step that the family cannot do has failed."""
    set_seed(0)
    model.eval().zero_grad()
    ended = Ended({})
    try:
        ended.answers |= {f"output {n}": bits(t) for n, t in enumerate(tensors(step(model, inputs)))}
    except Exception as error:
        ended.failed = f"{type(error).__name__}: {error}"
    ended.answers |= state(model)
    return ended


def state(model: nn.Module) -> dict[str, Any]:
    """Weights, gradients, buffers, plain attributes of every module, and the states of all random numbers."""
    found: dict[str, Any] = {f"gradient of {name}": bits(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    found |= {f"value of {name}": bits(t) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    for name, module in model.named_modules():
        found |= {f"{name}.{key}": value for key, value in vars(module).items() if isinstance(value, _PLAIN)}
    drawn: Any = np.random.get_state()
    found["random numbers"] = (bits(torch.get_rng_state()), random.getstate(), drawn[1].tobytes())
    return found


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors of the same bits."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return str(tensor.dtype), tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def tensors(answer: Any) -> Iterator[Tensor]:
    """All tensors of an answer, those of its caches too."""
    if torch.is_tensor(answer):
        yield answer
    elif isinstance(answer, Mapping | list | tuple):
        for value in answer.values() if isinstance(answer, Mapping) else answer:
            yield from tensors(value)
    elif type(answer).__module__.startswith("transformers"):
        with suppress(TypeError):
            yield from tensors(list(vars(answer).values()))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same on both sides."""
    return [name for name in {**one, **other} if one.get(name, "absent") != other.get(name, "absent")]
