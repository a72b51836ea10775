"""Interventions: ablate, force and replay experts on a live model, and say what it does to whom.

>>> with intervene(model, RouteAround(layers=3, experts=[5, 7])):
...     model(**inputs)

Edits are a small vocabulary over layers, experts and tokens; each restores the model bit for bit, also after an exception.
"""

from ..routers.contribution import contribution
from ._base import Edit, intervene, overrides
from ._selection import parse
from .ablate import ablate
from .added import Add
from .biased import Bias, Weigh
from .choice import Capacity, RouteAround, TopK
from .contributions import Mean, Norms, norms
from .executed import Force, Identity, RandomRouter, Swap, Zero
from .replay import Replay, Route, read_routes, route_of

__all__ = [
    "Add",
    "Bias",
    "Capacity",
    "Edit",
    "Force",
    "Identity",
    "Mean",
    "Norms",
    "RandomRouter",
    "Replay",
    "Route",
    "RouteAround",
    "Swap",
    "TopK",
    "Weigh",
    "Zero",
    "ablate",
    "contribution",
    "intervene",
    "norms",
    "overrides",
    "parse",
    "read_routes",
    "route_of",
]
