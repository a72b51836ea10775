"""Load what a user names: a specimen, a local folder, an adapter's folder, a V-MoE checkpoint, a model of the hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError, ModelError, MoescopeError
from ..foreign import doing, one_line
from . import zoo
from .adapters import base_of, is_adapter, put_on
from .guard import config_of, unpickled
from .missing import complete, readable, reported, steady
from .pipelines import denoiser, load_pipeline

_HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
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
SPECIMENS = Path(__file__).parent / "specimens"


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
    pipe: Any = None  # a pipeline of diffusers, which takes a prompt; `model` is its denoiser

    @property
    def reads(self) -> str:
        """text or image."""
        return "image" if self.prepare is not None else "text"


def specimens() -> dict[str, Path]:
    """The models that moescope ships, by name."""
    return {folder.name: folder for folder in sorted(SPECIMENS.iterdir()) if (folder / "config.json").exists()}


def device_of(device: str) -> torch.device:
    """`auto`: a GPU where there is one. InputError if the device asked for is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"device {device!r} cannot be used here: {one_line(first)}; try cpu") from error
    if found.type == "meta":
        raise InputError("device 'meta' holds no numbers, so nothing can be run there; try cpu")
    return found


def dtype_of(dtype: str, device: torch.device) -> torch.dtype | str:
    """`auto`: float32 on a CPU, the checkpoint's own type on a GPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in known:
        raise InputError(f"dtype {dtype!r} is not one of auto, {', '.join(known)}")
    return known[dtype]


@dataclass(frozen=True)
class _How:
    device: torch.device
    dtype: torch.dtype | str
    remote: bool
    pickle: bool
    missing: bool
    revision: str | None = None


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_missing: bool = False,
) -> Loaded:
    """Load a model by name or path, in evaluation mode; an adapter's folder (PEFT) as its base model with the adapter in it.

    InputError for a name that is nothing, ModelError for a folder that cannot be loaded safely: code of its own is refused
    unless `trust_remote_code`, pickled weights unless `allow_pickle`. ModelError too where the checkpoint lacks weights that
    the model has, holds others or some of another shape, unless `allow_missing`: then they are said in `notes`, and those that
    are missing are the same random numbers each time (a V-MoE must be whole always).
    """
    where = device_of(device)
    how = _How(where, dtype_of(dtype, where), trust_remote_code, allow_pickle, allow_missing)
    with doing(f"loading {name}", ModelError):
        return _found(str(name), how, revision)


def _found(name: str, how: _How, revision: str | None) -> Loaded:
    folder = specimens().get(name, Path(name))
    if is_adapter(folder):
        return _adapter(name, folder, how)
    if (folder / "config.json").exists():
        return _folder(name, folder, how)
    if (folder / "model_index.json").exists():
        pipe = load_pipeline(folder, how.device, how.dtype, how.pickle)
        return Loaded(name, denoiser(pipe), pipe=pipe)
    if name in zoo.names() and not folder.exists():
        return _zoo(name, how)
    if Path(f"{name}.index").exists():
        return _checkpoint(name, how.device, how.dtype)
    if folder.exists():
        raise ModelError(
            f"{name} is no model: a model's folder has a config.json, an adapter's an adapter_config.json, a pipeline's a "
            "model_index.json, a V-MoE checkpoint a file PREFIX.index"
        )
    if not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"there is no model {name[:200]!r}: name a folder, owner/name on the hub, one of {', '.join(specimens())}, or a "
            f"small model of a system: {', '.join(zoo.names())}"
        )
    return _folder(name, name, replace(how, revision=revision))


def _adapter(name: str, folder: Path, how: _How) -> Loaded:
    unpickled(folder, how.pickle)
    readable(folder)
    base = base_of(folder)
    try:
        under = load(
            base,
            device=str(how.device),
            dtype=str(how.dtype).removeprefix("torch."),
            trust_remote_code=how.remote,
            allow_pickle=how.pickle,
            allow_missing=how.missing,
        )
    except MoescopeError as error:
        raise type(error)(f"{name} is an adapter of {base}, which cannot be loaded: {error}") from error
    notes = put_on(name, folder, under.model, how.missing)
    own = _tokenizer(folder, {"trust_remote_code": how.remote})[0] if (folder / "tokenizer_config.json").exists() else None
    return replace(
        under, name=f"{base} + {name}", model=under.model.eval(), notes=[*under.notes, *notes], tokenizer=own or under.tokenizer
    )


def _folder(name: str, folder: Path | str, how: _How) -> Loaded:
    if isinstance(folder, Path):
        config = config_of(folder, how.remote, how.pickle)
        readable(folder)
        if config.get("model_type") == "vmoe":
            from .vmoe import VMoE

            return _vmoe(name, VMoE.from_pretrained(folder), how.device, how.dtype)
    import transformers

    options: dict[str, Any] = {"trust_remote_code": how.remote} | ({"revision": how.revision} if how.revision else {})
    if not isinstance(folder, Path):
        options |= _from_hub(folder, how.revision)
    transformers.utils.logging.disable_progress_bar()
    if not how.remote and "auto_map" in transformers.PretrainedConfig.get_config_dict(folder, **options)[0]:
        raise ModelError(f"{name} brings code of its own; moescope runs it only with --trust-remote-code")
    model, info = _weights(name, _class(transformers.AutoConfig.from_pretrained(folder, **options)), folder, how, options)
    tokenizer, reason = _tokenizer(folder, options)
    notes = complete(name, model, info, how.missing)
    return Loaded(name, model.to(how.device).eval(), tokenizer, notes=notes, no_tokenizer=reason)


def _weights(name: str, cls: Any, folder: Path | str, how: _How, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model, and what Transformers says of weights that were not there or not taken."""
    asked = {"dtype": how.dtype, "use_safetensors": None if how.pickle else True, **options}
    with reported(name), steady(how.missing):
        return cls.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **asked)  # type: ignore[no-any-return]


def _from_hub(name: str, revision: str | None) -> dict[str, Any]:
    """Options for a name of the hub. ModelError where neither the hub nor the cache has it."""
    if _hub_answers(name):
        return {}
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        raise ModelError(
            f"{name} is not here and the hub cannot be reached: check the name or the network, or give a local folder"
        )
    return {"local_files_only": True}


def _hub_answers(name: str) -> bool:
    """Ask once, for at most five seconds, where loading would try for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError

    if HF_HUB_OFFLINE:
        return False
    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:
        return True  # it says no, which loading will explain
    except Exception:  # each HTTP library has its own
        return False
    return True


def _class(config: Any) -> Any:
    import transformers

    for name in getattr(config, "architectures", None) or []:
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def _tokenizer(folder: Path | str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer; or None and why there is none, which only texts need."""
    import transformers

    if isinstance(folder, Path) and not any((folder / name).exists() for name in _TOKENIZERS):
        return None, "comes without a tokenizer"
    try:
        with doing("loading its tokenizer", InputError):
            return transformers.AutoTokenizer.from_pretrained(folder, **options), ""
    except InputError as error:
        return None, f"comes with a tokenizer that cannot be used ({error})"


_TIMES = (900.0, 700.0, 500.0, 300.0, 100.0)


def _zoo(name: str, how: _How) -> Loaded:
    """A small model of a system, trained where weights are shipped; texts are read with the tokenizer of a specimen."""
    reads = zoo.system(name).READS
    tokenizer = _tokenizer(SPECIMENS / "mixtral", {})[0] if reads == "text" else None
    model, notes = _small(name, {"vocabulary": len(tokenizer)} if tokenizer is not None else {})
    model = (model.to(how.device) if isinstance(how.dtype, str) else model.to(how.device, how.dtype)).eval()
    if reads != "noise":
        return Loaded(name, model, tokenizer, notes=notes, no_tokenizer="takes no text alone: give it inputs in Python")

    size: Any = SimpleNamespace(image_size=(model.config.sample_size,) * 2, channels=model.config.num_channels)

    def pictures(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        from .vmoe.images import prepare

        return prepare(images, size)

    return Loaded(name, model, None, pictures, notes, times=_TIMES)


def _small(name: str, changes: dict[str, Any]) -> tuple[Any, list[str]]:
    """The model, and what is to be said of its weights."""
    if name in zoo.shipped():
        return zoo.trained(name), []
    chance = f"{name} is a small model of this system with random weights: what its experts are for is chance"
    return zoo.build(name, **changes), [chance]


def _checkpoint(prefix: str, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.checkpoint import from_checkpoint

    return _vmoe(prefix, from_checkpoint(prefix), device, dtype)


def _vmoe(name: str, model: Any, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.images import prepare

    def pixels(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return prepare(images, model.config)

    model = model.to(device) if isinstance(dtype, str) else model.to(device, dtype)
    return Loaded(name, model.eval(), None, pixels)
