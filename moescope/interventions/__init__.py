"""Interventions: ablate, force and replay experts on a live model, and say what it does to whom.

>>> with intervene(model, RouteAround(layers=3, experts=[5, 7])):
...     model(**inputs)

Edits are a small vocabulary over layers, experts and tokens; each restores the model bit for bit, also after an exception.
"""

from ..routers.contribution import contribution
from .ablation.ablate import ablate
from .edits.added import Add
from .edits.base import Edit, intervene, overrides
from .edits.biased import Bias, Weigh
from .edits.choice import Capacity, RouteAround, TopK
from .edits.contributions import Mean, Norms, norms
from .edits.executed import Force, Identity, RandomRouter, Swap, Zero
from .edits.replay import Replay, Route, read_routes, route_of
from .edits.selection import parse

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
