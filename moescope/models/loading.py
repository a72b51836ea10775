"""Load what a user names: a specimen, a local folder, an adapter's folder, a V-MoE checkpoint, a model of the hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from ..errors import InputError, ModelError, MoescopeError
from .adapters import base_of, is_adapter, put_on
from .missing import complete, readable, reported, steady

SPECIMENS = Path(__file__).parent / "specimens"


@dataclass(eq=False)
class Loaded:
    """A model ready to run: with its tokenizer, or for images with `prepare` (pictures → float array of a batch)."""

    name: str
    model: nn.Module
    tokenizer: Any = None
    prepare: Any = None
    notes: list[str] = field(default_factory=list)  # sentences on weights that were not as the model has them

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
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}; try cpu") from error
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
    folder = specimens().get(str(name), Path(name))
    if is_adapter(folder):
        return _adapter(str(name), folder, how)
    if (folder / "config.json").exists():
        return _folder(str(name), folder, how)
    if Path(f"{name}.index").exists():
        return _checkpoint(str(name), where, how.dtype)
    if folder.exists():
        raise ModelError(
            f"{name} is no model: a model's folder has a config.json, an adapter's an adapter_config.json, a V-MoE checkpoint "
            "a file PREFIX.index"
        )
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise InputError(
            f"there is no model {str(name)!r}: name a folder, owner/name on the hub, or one of {', '.join(specimens())}"
        )
    return _folder(str(name), str(name), replace(how, revision=revision))


def _adapter(name: str, folder: Path, how: _How) -> Loaded:
    _unpickled(folder, how.pickle)
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
    own = _tokenizer(folder, {"trust_remote_code": how.remote}) if (folder / "tokenizer_config.json").exists() else None
    return replace(
        under, name=f"{base} + {name}", model=under.model.eval(), notes=[*under.notes, *notes], tokenizer=own or under.tokenizer
    )


def _folder(name: str, folder: Path | str, how: _How) -> Loaded:
    if isinstance(folder, Path):
        _safe(folder, how)
        readable(folder)
        if '"vmoe"' in (folder / "config.json").read_text():
            from .vmoe import VMoE

            return _vmoe(name, VMoE.from_pretrained(folder), how.device, how.dtype)
    import transformers

    options: dict[str, Any] = {"trust_remote_code": how.remote} | ({"revision": how.revision} if how.revision else {})
    if not isinstance(folder, Path) and not _hub_answers(folder):
        options["local_files_only"] = True  # the cache may have it
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        model, info = _weights(name, _class(config), folder, how, options)
        tokenizer = _tokenizer(folder, options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_why(name, error)) from error
    return Loaded(name, model.to(how.device).eval(), tokenizer, notes=complete(name, model, info, how.missing))


def _weights(name: str, cls: Any, folder: Path | str, how: _How, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model, and what Transformers says of weights that were not there or not taken."""
    asked = {"dtype": how.dtype, "use_safetensors": None if how.pickle else True, **options}
    with reported(name), steady(how.missing):
        return cls.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **asked)  # type: ignore[no-any-return]


def _hub_answers(name: str) -> bool:
    """Ask once, for at most five seconds, where loading would try for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:
        return True  # it says no, which loading will explain
    except Exception:  # each HTTP library has its own
        return False
    return True


def _why(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return f"{name} brings code of its own; moescope runs it only with --trust-remote-code"
    if any(word in text for word in ("couldn't connect", "offline", "Connection", "resolve", "Max retries")):
        return f"{name} is not here and the hub cannot be reached: check the name or the network, or give a local folder"
    return f"{name} cannot be loaded: {text[:300]}"


def _safe(folder: Path, how: _How) -> None:
    if '"auto_map"' in (folder / "config.json").read_text() and not how.remote:
        raise ModelError(f"{folder} brings code of its own (auto_map in config.json); it runs only with --trust-remote-code")
    _unpickled(folder, how.pickle)


def _unpickled(folder: Path, allow: bool) -> None:
    pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickled and not [*folder.glob("*.safetensors")] and not allow:
        raise ModelError(
            f"the weights in {folder} are pickled ({pickled[0].name}), which can run code; convert them to safetensors, or say "
            "--allow-pickle if you trust them"
        )


def _class(config: Any) -> Any:
    import transformers

    named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or []]
    if named and named[0] is not None:
        return named[0]
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def _tokenizer(folder: Path | str, options: dict[str, Any]) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, ImportError):
        return None


def _checkpoint(prefix: str, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.checkpoint import from_checkpoint

    return _vmoe(prefix, from_checkpoint(prefix), device, dtype)


def _vmoe(name: str, model: Any, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.images import prepare

    def pixels(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return prepare(images, model.config)

    model = model.to(device) if isinstance(dtype, str) else model.to(device, dtype)
    return Loaded(name, model.eval(), None, pixels)
