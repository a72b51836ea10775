"""Which model types of the installed Transformers hold a router, read from Transformers itself.

A configuration that declares how many routed experts there are (`num_experts`, `n_routed_experts`, `moe_num_experts`, …)
is a family. Configuration files are first searched as text, so that only the promising ones are imported.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES, model_type_to_module_name

from ...errors import InputError

_COUNT = r"(?:moe_)?(?:num|n)_(?:local_|routed_)?experts"
_ROUTED_CLASS = r"^class \w*(?:Router|Experts?\b|MoE|Moe)\w*\("
_TASKS = ("ForCausalLM", "ForConditionalGeneration", "ForTokenClassification", "Model", "Backbone")

NOT_ROUTED = {"granite_docling": "its density router decides how finely an image is read; there are no experts"}


@cache
def names() -> list[str]:
    """Every `model_type` whose configuration declares a number of routed experts, sorted (75 in Transformers 5.23)."""
    promising = _packages("configuration", rf"^    {_COUNT}\b")
    return sorted(t for t in CONFIG_MAPPING_NAMES if model_type_to_module_name(t) in promising and _counts_experts(t))


@cache
def unknown() -> list[str]:
    """Model types that look routed (a class named router, expert or MoE) although no number of experts was found.

    Packages known not to be routed are left out (`NOT_ROUTED`), so every name here deserves a look.
    """
    known = {model_type_to_module_name(t) for t in names()}
    suspects = _packages("modeling", _ROUTED_CLASS) - known - NOT_ROUTED.keys()
    return sorted(t for t in CONFIG_MAPPING_NAMES if model_type_to_module_name(t) in suspects)


def config_class(model_type: str) -> type[PreTrainedConfig]:
    """The configuration class of a family; raises InputError for a name that is no family."""
    if model_type not in names():
        raise InputError(
            f"No family is called {model_type!r}; Transformers {transformers.__version__} has {len(names())}, "
            f"choose one of: {', '.join(names())}."
        )
    return CONFIG_MAPPING[model_type]


def model_class(model_type: str) -> type[PreTrainedModel]:
    """The class people run for this family: the causal language model where there is one, the backbone otherwise."""
    found = list(_model_classes(config_class(model_type)))
    by_task = [c for task in _TASKS for c in found if c.__name__.endswith(task)]
    if not by_task:
        raise InputError(f"Transformers has no model class for {model_type!r}, so it cannot be built.")
    return by_task[0]


def _packages(kind: str, pattern: str) -> set[str]:
    models = Path(transformers.__file__).parent / "models"
    return {f.parent.name for f in models.glob(f"*/{kind}_*.py") if re.search(pattern, f.read_text("utf-8"), re.M)}


def _counts_experts(model_type: str) -> bool:
    config = CONFIG_MAPPING[model_type]
    own = [c for c in config.sub_configs.values() if c.__module__ == config.__module__]
    inline = [c for c in own if c.model_type not in CONFIG_MAPPING_NAMES]
    return any(re.fullmatch(_COUNT, f.name) for c in (config, *inline) for f in dataclasses.fields(c))


def _model_classes(config: type[PreTrainedConfig]) -> Iterator[type[PreTrainedModel]]:
    home = importlib.import_module(config.__module__.rpartition(".")[0])
    for info in pkgutil.iter_modules(home.__path__):
        if info.name.startswith("modeling_"):
            module = importlib.import_module(f"{home.__name__}.{info.name}")
            for cls in vars(module).values():
                if _is_model(cls) and cls.config_class is config:
                    yield cls


def _is_model(cls: object) -> bool:
    return inspect.isclass(cls) and issubclass(cls, PreTrainedModel) and not cls.__name__.endswith("PreTrainedModel")
