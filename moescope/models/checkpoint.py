"""A model of Transformers from its checkpoint: the configuration, where its weights go, the weights."""

from pathlib import Path
from typing import Any

from ..errors import ModelError
from . import attention
from .hub import from_hub
from .loaded import How
from .missing import reported, steady
from .placing.memory_plan import LARGE, Plan, planned
from .placing.one_copy import one_copy, spread_over
from .quantized import checkpoints


def configuration(name: str, folder: Path | str, how: How) -> tuple[Any, dict[str, Any], str | None]:
    """A model's configuration, with which options it and the weights are read, and how these are quantized, if they are."""
    import transformers

    options: dict[str, Any] = {"trust_remote_code": how.remote} | ({"revision": how.revision} if how.revision else {})
    if not isinstance(folder, Path):
        options |= from_hub(folder, how.revision)
    transformers.utils.logging.disable_progress_bar()
    settings = transformers.PretrainedConfig.get_config_dict(folder, **options)[0]
    if not how.remote and "auto_map" in settings:
        raise ModelError(f"{name} brings code of its own; moescope runs it only with --trust-remote-code")
    method = checkpoints.brought(name, settings)
    return transformers.AutoConfig.from_pretrained(folder, **options), options, method


def weights(
    name: str, config: Any, folder: Path | str, how: How, options: dict[str, Any], method: str | None
) -> tuple[Any, dict[str, Any]]:
    """The model where it goes, and what Transformers says of weights that were not there or not taken."""
    cls = _class(config)
    asked = {"dtype": how.dtype, "use_safetensors": None if how.pickle else True, **options}
    asked |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **attention.options(name, cls, how.attention)}
    asked |= checkpoints.options(name, cls, config, how, method)
    with reported(name, method or how.quantize), steady(how.missing):
        if how.parallel is not None:  # each process has its part where it belongs
            return cls.from_pretrained(folder, distributed_config=how.parallel, **asked)  # type: ignore[no-any-return]
        found = plan_of(name, config, folder, how, method)
        if how.say is not None and found.total >= LARGE:
            how.say(found.sentence())
        with one_copy(found.places), spread_over(found, checkpoints.stays_where_loaded(how, method)) as places:
            model, info = cls.from_pretrained(folder, **places.options, **asked)
    return places.kept_for(model), info


def plan_of(name: str, config: Any, folder: Path | str, how: How, method: str | None) -> Plan:
    """Where its weights go, and what that takes; ModelError where it does not fit."""
    found = planned(name, _class(config), config, folder, how, method)
    checkpoints.check_spread(name, (found.map or {}).values(), how, method)
    return found


def _class(config: Any) -> Any:
    import transformers

    for name in getattr(config, "architectures", None) or []:
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return auto._model_mapping.get(type(config), auto)
