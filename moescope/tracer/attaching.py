"""What a Tracer listens to: the routers that were asked for, each of them proved, and modules that fire again and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..contracts import Site, find
from ..models.describe import ask
from ..proof import Proof, example_inputs, proved
from .activations.recursive import Repeated, find_routers
from .options import Options
from .together import Together


@dataclass(frozen=True)
class Attached:
    """Routers to record (`key`: their place in the list), what fires again and again, names of all routers that there are."""

    sites: list[Site]
    repeated: list[Repeated]
    routers: set[str]
    together: Together
    proof: Proof


def attached(model: nn.Module, options: Options, inputs: Mapping[str, Any] | None) -> Attached:
    """Find and prove, on `inputs` or on made-up tokens.

    NotMoEError for a model with nothing to record, InputError for options that it cannot fulfil, ModelError and its kinds where
    the proof fails.
    """
    ask(model, options.predictions, options.activations)
    sites, repeated = find_routers(model, options, inputs)
    together = Together.of(model, options, sites, inputs)
    routers = {site.name for site in sites} if options.layers is None else {site.name for site in find(model)}
    proof = proved(model, sites, inputs if inputs is not None else example_inputs(model)) if sites else Proof([])
    for number, site in enumerate(sites):
        site.key = number
    return Attached(sites, repeated, routers, together, proof)
