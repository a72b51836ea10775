"""How routers speak: one file per contract; see moescope/routers/base.py for what a contract offers.

Another package adds one with an entry point in the group `moescope.contracts` whose module has an object `contract`.
"""

from torch import nn

from ..discover import modules
from ..errors import NotMoEError, UnknownContract
from ..routers.base import Call, Contract, Edit, Emit, Record, Site
from ..routers.calls import signature
from ..routers.compiled import check_compiled, is_wrapper
from ..routers.notes import describe
from ..routers.reading.method_call import MethodCall
from ..routers.reading.router_call import RouterCall
from ..routers.rows.nested import nest
from ..routers.suspects import suspects
from ..routers.versions import check_transformers

__all__ = ["Call", "Contract", "Edit", "Emit", "MethodCall", "Record", "RouterCall", "Site", "contracts", "find"]


_PICTURES = {"pixel_values", "timestep", "timesteps"}  # pixels, or latents that are denoised


def contracts() -> dict[str, Contract]:
    """All contracts by name, built in and from other packages; those that fit many layers (`general`) come last."""
    found = [m.contract for m in modules("contracts").values()]
    return {c.name: c for c in sorted(found, key=lambda c: c.general)}


def find(model: nn.Module) -> list[Site]:
    """Every router of a model, by walking its modules; the first contract that knows a module has it.

    NotMoEError if there is none, UnknownContract if a module looks routed and no contract knows it, ModelError for a version
    of Transformers whose routers say something else, and for what torch.compile has compiled.
    """
    check_transformers(model)
    check_compiled(model, [])
    known = contracts()
    sites = [site for name, module in model.named_modules() if not wraps(module) for site in _first(known, name, module)]
    strange = suspects(model, sites)
    if strange:
        raise UnknownContract(
            f"{strange[0]} ({type(model.get_submodule(strange[0])).__name__}) looks like a routed layer, but it speaks none "
            f"of the contracts {', '.join(known)}; describe it in a contract of its own (docs/plugin.md), about 20 lines"
        )
    if not sites:
        raise NotMoEError(
            f"{type(model).__name__} has no router that moescope can find among its {sum(1 for _ in model.modules())} modules: "
            f"it is not a mixture of experts, or it speaks none of the contracts {', '.join(known)}; see `moescope families`"
        )
    check_compiled(model, sites)
    takes = set(signature(model).parameters)
    for site in sites:
        site.images = bool(takes & _PICTURES) and not takes & {"input_ids", "inputs_embeds"}
        site.parent = model.get_submodule(site.name.rpartition(".")[0]) if site.name else None
        describe(model, site)
    nest(sites)
    return sites


def wraps(module: nn.Module) -> bool:
    """A TransformerLens bridge or torch.compile's wrapper around the module that is meant; that one is met on its own."""
    return "_original_component" in module._modules or is_wrapper(module)


def _first(known: dict[str, Contract], name: str, module: nn.Module) -> list[Site]:
    return next((found for c in known.values() if (found := list(c.find(name, module)))), [])
