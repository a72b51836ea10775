"""Load what a user names: a specimen, a local folder, an adapter's folder, a V-MoE checkpoint, a model of the hub."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, ModelError, MoescopeError
from ..foreign import doing
from . import attention, quantized, zoo
from .adapters import base_of, check_adapter, is_adapter, other_base, put_on
from .guard import config_of, unpickled
from .loaded import How, Loaded, device_of, dtype_of, tokenizer_of
from .missing import complete, readable, reported, steady
from .parallel import check_distributed, distributed
from .pipelines import denoiser, load_pipeline
from .small import load_small

__all__ = ["Loaded", "device_of", "dtype_of", "load", "specimens"]
_HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
SPECIMENS = Path(__file__).parent / "specimens"


def specimens() -> dict[str, Path]:
    """The models that moescope ships, by name."""
    return {folder.name: folder for folder in sorted(SPECIMENS.iterdir()) if (folder / "config.json").exists()}


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_missing: bool = False,
    parallel: str | None = None,
    quantize: str | None = None,
    attn: str | None = None,
    adapter: str | Path | None = None,
) -> Loaded:
    """Load a model by name or path, in evaluation mode; an adapter's folder (PEFT) as its base model with the adapter in it.

    InputError for a name that is nothing, ModelError for a folder that cannot be loaded safely: code of its own is refused
    unless `trust_remote_code`, pickled weights unless `allow_pickle`. ModelError too where the checkpoint lacks weights that
    the model has, holds others or some of another shape, unless `allow_missing`: then they are said in `notes`, and those that
    are missing are the same random numbers each time (a V-MoE must be whole always). `parallel`: tensor or expert, of a model
    that the processes of torchrun run together. `quantize`: a way to quantize a plain checkpoint of Transformers
    (models.quantized.WAYS). `attn`: its attention (models.attention.WAYS). `adapter`: the folder of an adapter (PEFT) to put
    on. InputError where they cannot be had here.
    """
    processes = distributed(parallel, device=device)
    where = device_of(device)
    how = How(
        where,
        dtype_of(dtype, where),
        trust_remote_code,
        allow_pickle,
        allow_missing,
        parallel=processes,
        quantize=quantized.check_way(quantize, where),
        attention=attention.check_attention(attn, where),
    )
    with doing(f"loading {name}", ModelError):
        found = (
            _with_adapter(str(name), Path(adapter), how, revision) if adapter is not None else _found(str(name), how, revision)
        )
        check_distributed(str(name), found.model, processes)
        return found


def _found(name: str, how: How, revision: str | None) -> Loaded:
    folder = specimens().get(name, Path(name))
    if is_adapter(folder):
        return _adapter(name, folder, how)
    if (folder / "config.json").exists():
        return _folder(name, folder, how)
    if (folder / "model_index.json").exists():
        _plain(name, how)
        pipe = load_pipeline(folder, how.device, how.dtype, how.pickle)
        return Loaded(name, denoiser(pipe), pipe=pipe)
    if name in zoo.names() and not folder.exists():
        _plain(name, how)
        return load_small(name, how, SPECIMENS / "mixtral")
    if Path(f"{name}.index").exists():
        _plain(name, how)
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


def _plain(name: str, how: How) -> None:
    """InputError for what only models of Transformers take, asked of another."""
    asked = {"--quantize": how.quantize, "--attn": how.attention}
    if said := " and ".join(f"{option} {value}" for option, value in asked.items() if value is not None):
        raise InputError(f"{name} is no model of Transformers, and only those take {said}; leave it out")


def _adapter(name: str, folder: Path, how: How) -> Loaded:
    """An adapter's folder as the model: on the base that it names."""
    unpickled(folder, how.pickle)
    readable(folder)
    base = base_of(folder)
    try:
        under = _found(base, how, None)
    except MoescopeError as error:
        raise type(error)(f"{name} is an adapter of {base}, which cannot be loaded: {error}") from error
    return _adapted(under, base, name, folder, how)


def _with_adapter(name: str, folder: Path, how: How, revision: str | None) -> Loaded:
    """An adapter on the model that is named (`--adapter`)."""
    check_adapter(folder, name)
    unpickled(folder, how.pickle)
    readable(folder)
    if is_adapter(specimens().get(name, Path(name))):
        raise InputError(f"{name} is an adapter itself; name its base model, or merge the two before")
    found = _adapted(_found(name, how, revision), name, str(folder), folder, how)
    return replace(found, notes=[*found.notes, *other_base(folder, str(specimens().get(name, name)))])


def _adapted(under: Loaded, base: str, name: str, folder: Path, how: How) -> Loaded:
    notes = put_on(name, folder, under.model, how.missing)
    own = tokenizer_of(folder, {"trust_remote_code": how.remote})[0] if (folder / "tokenizer_config.json").exists() else None
    return replace(
        under, name=f"{base} + {name}", model=under.model.eval(), notes=[*under.notes, *notes], tokenizer=own or under.tokenizer
    )


def _folder(name: str, folder: Path | str, how: How) -> Loaded:
    if isinstance(folder, Path):
        config = config_of(folder, how.remote, how.pickle)
        readable(folder)
        if config.get("model_type") == "vmoe":
            from .vmoe import VMoE

            _plain(name, how)
            return _vmoe(name, VMoE.from_pretrained(folder), how.device, how.dtype)
    import transformers

    options: dict[str, Any] = {"trust_remote_code": how.remote} | ({"revision": how.revision} if how.revision else {})
    if not isinstance(folder, Path):
        options |= _from_hub(folder, how.revision)
    transformers.utils.logging.disable_progress_bar()
    settings = transformers.PretrainedConfig.get_config_dict(folder, **options)[0]
    if not how.remote and "auto_map" in settings:
        raise ModelError(f"{name} brings code of its own; moescope runs it only with --trust-remote-code")
    method = quantized.brought(name, settings)
    found = transformers.AutoConfig.from_pretrained(folder, **options)
    cls = _class(found)
    asked = options | attention.options(name, cls, how.attention) | quantized.options(name, cls, found, how, method)
    model, info = _weights(name, cls, folder, how, asked, method)
    tokenizer, reason = tokenizer_of(folder, options)
    notes = complete(name, model, info, how.missing) + quantized.settle(name, model, how, method)
    there = how.parallel is not None or how.quantize or method  # each process has its part where it belongs; so have kernels
    placed = model if there else model.to(how.device)
    return Loaded(name, placed.eval(), tokenizer, notes=notes, no_tokenizer=reason)


def _weights(
    name: str, cls: Any, folder: Path | str, how: How, options: dict[str, Any], method: str | None
) -> tuple[Any, dict[str, Any]]:
    """The model, and what Transformers says of weights that were not there or not taken."""
    asked = {"dtype": how.dtype, "use_safetensors": None if how.pickle else True, **options}
    asked |= {"distributed_config": how.parallel} if how.parallel is not None else {}
    with reported(name, method or how.quantize), steady(how.missing):
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
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return auto._model_mapping.get(type(config), auto)


def _checkpoint(prefix: str, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.checkpoint import from_checkpoint

    return _vmoe(prefix, from_checkpoint(prefix), device, dtype)


def _vmoe(name: str, model: Any, device: torch.device, dtype: Any) -> Loaded:
    from .vmoe.images import prepare

    def pixels(images: Sequence[Any] | np.ndarray) -> np.ndarray:
        return prepare(images, model.config)

    model = model.to(device) if isinstance(dtype, str) else model.to(device, dtype)
    return Loaded(name, model.eval(), None, pixels)
