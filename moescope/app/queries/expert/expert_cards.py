"""Cards of all experts of a layer, counted on the part of the run that its pages count on."""

from functools import partial
from typing import Any

from moescope.app.queries import store_access
from moescope.app.queries.expert import experts
from moescope.app.queries.layers import Layer
from moescope.show import expert_cards
from moescope.show.expert_cards import Card

__all__ = ["Card", "of"]


def of(run: dict[str, Any], layer: Layer) -> list[Card]:
    """A card for every expert of a layer."""
    labelled = partial(experts.labelled, run, layer)
    return expert_cards.of(store_access.frame, run, layer, experts.part_of(run, layer)[0], labelled)
