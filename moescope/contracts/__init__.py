"""How routers speak: one file per contract; see `_base.py` for what a contract offers.

Another package adds one with an entry point in the group `moescope.contracts` whose module has an object `contract`.
"""

import inspect

from torch import nn

from ..discover import modules
from ..errors import NotMoEError
from ._base import Call, Contract, Edit, Emit, Record, Site

__all__ = ["Call", "Contract", "Edit", "Emit", "Record", "Site", "contracts", "find"]


def contracts() -> dict[str, Contract]:
    """All contracts by name, built in and from other packages."""
    return {m.contract.name: m.contract for m in modules("contracts").values()}


def find(model: nn.Module) -> list[Site]:
    """Every router of a model, by walking its modules. NotMoEError if there is none."""
    known = contracts()
    sites = [site for name, module in model.named_modules() for c in known.values() for site in c.find(name, module)]
    if not sites:
        raise NotMoEError(
            f"{type(model).__name__} has no router that moescope can find among its {sum(1 for _ in model.modules())} modules: "
            f"it is not a mixture of experts, or it speaks none of the contracts {', '.join(known)}; see `moescope families`"
        )
    takes = set(inspect.signature(model.forward).parameters)
    for site in sites:
        site.images = "pixel_values" in takes and not takes & {"input_ids", "inputs_embeds"}
    return sites
