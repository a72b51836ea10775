"""What loading gives: a model ready to run, where and in which precision; and tokenizers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..foreign import doing
from .placing.placement import Placement

_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "tekken.json",
)


@dataclass(frozen=True)
class Unloaded:
    """A processor that nobody has asked for yet."""

    load: Callable[[], tuple[Any, str]]

    def __call__(self) -> tuple[Any, str]:
        """The processor; or None and why there is none."""
        return self.load()


@dataclass(eq=False)
class Loaded:
    """A model ready to run: with its tokenizer, or for images with `prepare` (pictures → float array of a batch)."""

    name: str
    model: nn.Module
    tokenizer: Any = None
    prepare: Any = None
    notes: list[str] = field(default_factory=list)  # sentences on weights that were not as the model has them
    no_tokenizer: str = "comes without a tokenizer"
    times: tuple[float, ...] = ()  # a denoiser's: timesteps at which pictures are shown to it, with so much noise
    by_hand: bool = False  # takes more than a data set gives, such as pictures and texts at once
    processor: Any = None  # what makes inputs of texts with media; or a call that loads it and says why there is none
    no_processor: str = "comes without a processor"
    pipe: Any = None  # a pipeline of diffusers, which takes a prompt; `model` is its denoiser

    def own_processor(self) -> Any:
        """The processor, loaded when it is first asked for; None, and `no_processor` says why, where there is none."""
        if isinstance(self.processor, Unloaded):
            self.processor, reason = self.processor()
            self.no_processor = reason or self.no_processor
        return self.processor

    @property
    def reads(self) -> str:
        """text or image."""
        return "image" if self.prepare is not None else "text"


def dtype_of(dtype: str) -> torch.dtype | str:
    """`auto`: the checkpoint's own type."""
    if dtype == "auto":
        return "auto"
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise InputError(f"dtype {dtype!r} is not one of auto, {', '.join(known)}")
    return known[dtype]


@dataclass(frozen=True)
class How:
    """How weights are loaded."""

    place: Placement
    dtype: torch.dtype | str
    remote: bool
    pickle: bool
    missing: bool
    revision: str | None = None
    parallel: Any = None  # over processes: what Transformers is told
    quantize: str | None = None
    attention: str | None = None
    say: Callable[[str], object] | None = None  # told what a large model will take, before it is loaded

    @property
    def device(self) -> torch.device:
        """What a model begins on."""
        return self.place.device


def tokenizer_of(folder: Path | str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer; or None and why there is none, which only texts need."""
    import transformers

    if isinstance(folder, Path) and not any((folder / name).exists() for name in _TOKENIZERS):
        return None, "comes without a tokenizer"
    try:
        with doing("loading its tokenizer", InputError):
            return transformers.AutoTokenizer.from_pretrained(folder, **options), ""
    except InputError as error:
        return None, f"comes with a tokenizer that cannot be used ({error})"
