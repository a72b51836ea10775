"""Routing options that may be changed on a live model: they change decisions, never parameters."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

from ...errors import InputError
from ...words import check
from .config import DispatcherConfig, Kind, MoeConfig, RouterConfig, VMoEConfig

Level = TypeVar("Level", MoeConfig, RouterConfig, DispatcherConfig)
_ANY = {"group_size", "noise_std", "deterministic"}
_CAPACITY = {"capacity", "capacity_factor", "capacity_ceil_or_round", "capacity_multiple_of", "bfloat16"}
SWITCHES: dict[Kind, set[str]] = {
    "token_choice": _ANY | _CAPACITY | {"batch_priority", "num_selected_experts"},
    "expert_choice": _ANY | _CAPACITY,
    "soft": _ANY,  # the slots are parameters
}


def with_routing(config: VMoEConfig, **options: Any) -> VMoEConfig:
    """A copy of the config with other routing options; InputError for an option that its kind of router lacks.

    `capacity` and `capacity_factor` exclude each other, so giving one clears the other.
    """
    moe = config.encoder.moe
    unknown = sorted(set(options) - SWITCHES[moe.router.kind])
    if unknown:
        can = ", ".join(sorted(SWITCHES[moe.router.kind]))
        raise InputError(f"{moe.router.kind} routing has no switch {', '.join(unknown)}: it has {can}.")
    for name, other in (("capacity", "capacity_factor"), ("capacity_factor", "capacity")):
        if options.get(name) is not None:
            options.setdefault(other, None)
    router = _take(moe.router, options, {"noise_std", "deterministic", "num_selected_experts"})
    router = replace(router, dispatcher=_take(moe.router.dispatcher, options, _CAPACITY | {"batch_priority"}))
    moe = replace(_take(moe, options, {"group_size"}), router=router)
    return replace(config, encoder=replace(config.encoder, moe=moe))


def _take(level: Level, options: Mapping[str, Any], names: set[str]) -> Level:
    own = {f.name for f in fields(level)} & names & options.keys()
    hints = get_type_hints(type(level))
    for name in own:
        check(name, options[name], hints[name])
    return replace(level, **{name: options[name] for name in own})
