"""Why a record that may be right cannot be proved."""

from ..contracts import Site
from ..weights import forms


def cause(site: Site, otherwise: str) -> str:
    """A clause on experts whose weights are no plain tensors, `otherwise` where they are."""
    found = forms(site.experts or site.block)
    if not found:
        return otherwise
    return (
        f": its experts' weights are {', '.join(found)}, which may round by what else is in a call or be whole only inside the "
        "model's own forward, so one expert alone gives something else; trace the model before it is quantized or sharded"
    )
