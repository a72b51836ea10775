"""Load what a user names: a specimen, a local folder, an adapter's folder, a V-MoE checkpoint, a model of the hub."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, MoescopeError
from ..foreign import doing
from . import attention, vision, zoo
from .adapters import base_of, check_adapter, is_adapter, other_base, put_on
from .checkpoint import configuration, plan_of, weights
from .gguf import is_gguf, load_gguf
from .guard import config_of, unpickled
from .hub import HUB_NAME
from .loaded import How, Loaded, Unloaded, dtype_of, tokenizer_of
from .missing import complete, readable
from .multimodal.processor import has_processor, processor_of
from .parallel import check_distributed, distributed
from .pipelines import denoiser, load_pipeline
from .placing.placement import device_of, placement
from .quantized import checkpoints, ways
from .small import load_small

__all__ = ["Loaded", "device_of", "dtype_of", "load", "specimens", "taking"]
SPECIMENS = Path(__file__).parent / "specimens"


def specimens() -> dict[str, Path]:
    """The models that moescope ships, by name."""
    return {folder.name: folder for folder in sorted(SPECIMENS.iterdir()) if (folder / "config.json").exists()}


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | Path | Mapping[str, Any] | None = None,
    max_memory: str | Mapping[Any, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_missing: bool = False,
    parallel: str | None = None,
    quantize: str | None = None,
    attn: str | None = None,
    adapter: str | Path | None = None,
    say: Callable[[str], object] | None = None,
) -> Loaded:
    """Load a model by name or path, in evaluation mode; an adapter's folder (PEFT) as its base model with the adapter in it.

    InputError for a name that is nothing, ModelError for a folder that cannot be loaded safely: code of its own is refused
    unless `trust_remote_code`, pickled weights unless `allow_pickle`. ModelError too where the checkpoint lacks weights that
    the model has, holds others or some of another shape, unless `allow_missing`: then they are said in `notes`, and those that
    are missing are the same random numbers each time (a V-MoE must be whole always). `parallel`: tensor or expert, of a model
    that the processes of torchrun run together. `quantize`: a way to quantize a plain checkpoint of Transformers
    (models.quantized.ways). `attn`: its attention (models.attention.WAYS). `adapter`: the folder of an adapter (PEFT) to put
    on. InputError where they cannot be had here.

    `dtype`: the checkpoint's own, unless one is named. `device_map` (a strategy, a JSON file, {module: device}) and
    `max_memory` ("0=20GB,cpu=64GB") spread a model over GPUs, memory and the disk, as `device="auto"` does by itself where it
    does not fit; `say` hears what a large one takes before it is loaded. InputError for devices that are not there and maps
    that do not fit, ModelError where there is not enough memory.
    """
    processes = distributed(parallel, device=device, device_map=device_map, max_memory=max_memory)
    where = placement(device, device_map, max_memory)
    how = How(
        where,
        dtype_of(dtype),
        trust_remote_code,
        allow_pickle,
        allow_missing,
        parallel=processes,
        quantize=ways.check_way(quantize, where.device),
        attention=attention.check_attention(attn, where.device),
        say=say,
    )
    with doing(f"loading {name}", ModelError):
        found = (
            _with_adapter(str(name), Path(adapter), how, revision) if adapter is not None else _found(str(name), how, revision)
        )
        check_distributed(str(name), found.model, processes)
        return found


def taking(name: str | Path, **how: Any) -> str:
    """What loading a model would take and where it would go, in one line; its config.json is enough. Options as of `load`.

    ModelError where it would not fit. InputError for what is no model of Transformers, whose size nobody asks for.
    """
    where = placement(how.get("device", "auto"), how.get("device_map"), how.get("max_memory"))
    way = ways.check_way(how.get("quantize"), where.device)
    attention.check_attention(how.get("attn"), where.device)
    if how.get("adapter") is not None:
        check_adapter(Path(how["adapter"]), str(name))
    asked = How(where, dtype_of(how.get("dtype", "auto")), how.get("trust_remote_code", False), True, True, quantize=way)
    folder: Path | str = specimens().get(str(name), Path(name))
    if isinstance(folder, Path) and not (folder / "config.json").exists():
        if folder.exists() or not HUB_NAME.fullmatch(str(name)):
            raise InputError(f"{name} has no config.json, from which its size could be told; name a model of Transformers")
        folder = str(name)
    with doing(f"planning {name}", ModelError):
        config, _, method = configuration(str(name), folder, asked)
        return plan_of(str(name), config, folder, asked, method).sentence()


def _found(name: str, how: How, revision: str | None) -> Loaded:
    folder = specimens().get(name, Path(name))
    if is_gguf(folder):
        _plain(name, how)
        return load_gguf(name, folder, how)
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
        return vision.from_prefix(name, how)
    if folder.exists():
        raise ModelError(
            f"{name} is no model: a model's folder has a config.json, an adapter's an adapter_config.json, a pipeline's a "
            "model_index.json, a V-MoE checkpoint a file PREFIX.index, a model for llama.cpp is a file .gguf"
        )
    if not HUB_NAME.fullmatch(name):
        raise InputError(
            f"there is no model {name[:200]!r}: name a folder, owner/name on the hub, one of {', '.join(specimens())}, or a "
            f"small model of a system: {', '.join(zoo.names())}"
        )
    return _folder(name, name, replace(how, revision=revision))


def _plain(name: str, how: How) -> None:
    """InputError for what only models of Transformers take, asked of another."""
    if how.place.map is not None:
        raise InputError(
            f"{name} is no model of Transformers, and only those are spread; leave --device-map and --max-memory out"
        )
    asked = {"--quantize": how.quantize, "--attn": how.attention}
    if said := " and ".join(f"{option} {value}" for option, value in asked.items() if value is not None):
        raise InputError(f"{name} is no model of Transformers, and only those take {said}; leave it out")


def _adapter(name: str, folder: Path, how: How) -> Loaded:
    """An adapter's folder as the model: on the base that it names."""
    unpickled(folder, how.pickle)
    readable(folder)
    base = base_of(folder)
    try:
        with doing(f"loading {base}", ModelError):
            under = _found(base, how, None)
    except MoescopeError as error:
        raise type(error)(f"{name} is an adapter of {base}, which cannot be loaded: {error}") from error
    return _adapted(under, base, name, folder, how)


def _with_adapter(name: str, folder: Path, how: How, revision: str | None) -> Loaded:
    """An adapter on the model that is named (`--adapter`)."""
    if is_gguf(Path(name)):
        raise InputError(f"{name} is a GGUF, and adapters of PEFT go on models of Transformers: leave --adapter out")
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
            _plain(name, how)
            return vision.from_folder(name, folder, how)
    config, options, method = configuration(name, folder, how)
    model, info = weights(name, config, folder, how, options, method)
    tokenizer, reason = tokenizer_of(folder, options)
    notes = complete(name, model, info, how.missing) + checkpoints.settle(name, model, how, method)
    loaded = Loaded(name, model.eval(), tokenizer, notes=notes, no_tokenizer=reason)
    if not isinstance(folder, Path) or has_processor(folder):
        loaded.processor = Unloaded(partial(processor_of, folder, options))
    return loaded
