"""Adapters that PEFT puts into a model: from a folder, and what a model says of those it has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError, ModelError
from ..words import listed

CONFIG = "adapter_config.json"
OUTSIDE = {"XLORA": "XLoraModel", "POLY": "PolyModel"}  # PEFT's that take part in a forward from outside the base model


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of a whole model."""
    return (folder / CONFIG).is_file() and not [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]


def check_adapter(folder: Path, base: str) -> None:
    """InputError for a path that is no adapter's folder."""
    if folder.is_dir() and is_adapter(folder):
        return
    what = "a folder without" if folder.is_dir() else "no folder"
    what = "a whole model" if (folder / "config.json").is_file() else what
    raise InputError(
        f"{str(folder)[:200]} is no adapter: its folder has an {CONFIG} and no weights of a whole model, and this is {what}; "
        f"give the folder in which PEFT saved an adapter of {base}"
    )


def base_of(folder: Path) -> str:
    """The base model that an adapter names; a path may be relative to the adapter's folder. ModelError if it names none."""
    try:
        base = json.loads((folder / CONFIG).read_text()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not base:
        raise ModelError(
            f"{folder} is an adapter that names no base model; write its path into {CONFIG} (base_model_name_or_path)"
        )
    beside = folder / str(base)
    found = beside if _is_model(beside) and not _is_model(Path(base)) else Path(base)
    if found.exists() and found.samefile(folder):
        raise ModelError(f"{folder} is an adapter that names itself as its base model; write the model's path into {CONFIG}")
    return str(found) if found is beside else str(base)


def other_base(folder: Path, base: str) -> list[str]:
    """A sentence if an adapter was trained on another base model than this, by the name that it gives."""
    try:
        meant = base_of(folder)
    except ModelError:
        return []
    same = meant == base or (Path(meant).exists() and Path(base).exists() and Path(meant).samefile(base))
    return [] if same else [f"the adapter names {meant[:200]} as its base model, and was put on {base[:200]}"]


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", CONFIG))


def put_on(name: str, folder: Path, model: nn.Module, allow: bool) -> list[str]:
    """Put the adapter of a folder into its base model; sentences on weights that it lacks or that fit nowhere.

    ModelError if there are such and not `allow`, for an adapter that the model does not fit, one that changes no weights
    (prompt tuning) or is more than the base model with weights in it (X-LoRA, Poly), and where PEFT is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ModelError(f"{name} is an adapter, and PEFT, which puts it on, is not installed: pip install peft") from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(
            f"{name} is an adapter, and PEFT puts none on weights that are kept on the disk or beside a GPU; merge it into its "
            "base model (merge_and_unload, save_pretrained) and trace that, or load both where all of it fits"
        )
    try:
        done = _put(peft, name, folder, model)
    except ModelError:
        raise
    except Exception as error:  # PEFT has an error of its own for each way in which an adapter does not fit
        raise ModelError(f"{name} cannot be put on its base model: {' '.join(str(error).split())[:300]}") from error
    said = [
        f"{text} ({listed(keys)})"
        for keys, text in (
            (sorted(done.missing_keys), "lacks weights of its own, which are as PEFT begins them"),
            (sorted(done.unexpected_keys), "holds weights that fit nowhere in its base model, which are left out"),
        )
        if keys
    ]
    if said and not allow:
        raise ModelError(f"{name} {' and '.join(said)}; give the base model it was trained on, or say --allow-missing")
    return [f"the adapter {text}" for text in said]


def _put(peft: Any, name: str, folder: Path, model: nn.Module) -> Any:
    """The model with the adapter in it, by PEFT, which says what fits nowhere."""
    config = peft.PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise ModelError(
            f"{name} is an adapter of the kind {config.peft_type.value}, which puts tokens before the text and no weights "
            "into the model; only adapters of weights can be traced from a folder"
        )
    if config.peft_type.value in OUTSIDE:
        raise ModelError(
            f"{name} is an adapter of the kind {config.peft_type.value}, which takes part in a forward from outside the "
            "base model; load it with PEFT and give that model to moescope.Tracer"
        )
    config.inference_mode = True
    return peft.get_peft_model(model, config).load_adapter(str(folder), "default")


def active(model: nn.Module) -> list[str]:
    """Names of the adapters that take part in a model's forward now."""
    layers: Any = [m for m in model.modules() if "base_layer" in m._modules and not getattr(m, "disable_adapters", False)]
    return sorted({name for layer in layers for name in getattr(layer, "active_adapters", [])})


def settings(model: nn.Module) -> dict[str, Any]:
    """Each adapter's configuration by its name, as plain JSON; empty where there is none."""
    found = getattr(model, "peft_config", None)
    if not isinstance(found, Mapping) or not hasattr(next(iter(found.values()), None), "to_dict"):
        return {}
    return {name: json.loads(json.dumps(config.to_dict(), default=_plain, sort_keys=True)) for name, config in found.items()}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
