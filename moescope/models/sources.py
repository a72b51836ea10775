"""Models that come wrapped: TransformerLens bridges, nnsight envoys and PEFT models are traced as the model inside them.

PEFT models of which the model inside is not all that runs (X-LoRA's first pass, Poly's tasks) are traced as they are.
"""

from typing import Any

from torch import nn

from ..errors import InputError
from ..routers.compiled import is_wrapper, refused, runs_eagerly
from .adapters import OUTSIDE

WRAPPING = "_original_component."  # what TransformerLens puts into the path of a module that it replaced


def unwrap(model: Any) -> nn.Module:
    """The module whose forward runs: `model` itself, a bridge's `original_model`, an envoy's `_module`, PEFT's base model.

    InputError for what is none of them, and for an nnsight model that has no weights yet; ModelError for what `torch.compile`
    returned, unless it runs uncompiled at present.
    """
    kind = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if "transformer_lens" in kind:
        return model.original_model
    if is_wrapper(model):
        if not runs_eagerly():
            raise refused(f"this {type(model._orig_mod).__name__}")
        return unwrap(model._orig_mod)
    if "peft" in kind and hasattr(model, "get_base_model"):
        outside = type(model.base_model).__name__ in OUTSIDE.values()
        return model if outside else model.get_base_model()  # with the adapters in it
    if "nnsight" in kind:
        inner = model._module
        if any(p.is_meta for p in inner.parameters()):
            raise InputError("this nnsight model has no weights yet; load it first: LanguageModel(name, dispatch=True)")
        return inner
    if not isinstance(model, nn.Module):
        raise InputError(f"a {type(model).__name__} is no model: give a torch module, a TransformerBridge or an nnsight model")
    return model
