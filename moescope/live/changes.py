"""Changes of experts as they are written: PLACE:EXPERT=HOW, such as `2:5=off`, `decoder.3:0=forced`, `2:5=+1.5`, `2:5=x0.5`.

PLACE is a layer, `stack.layer`, or a router's path. off: the next best expert runs (where there is none, nothing does). forced:
it runs for every token, in the place of the least-weighted one. +1.5: so many nats are added to its router logit. x0.5: its
weight is multiplied.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..contracts import Site
from ..errors import InputError
from ..interventions import Bias, Edit, Force, RouteAround, Weigh, Zero
from ..interventions.edits.choice import no_next
from ..interventions.edits.selection import chosen

MOST = 256
_ONE = re.compile(r"(?P<place>[^\s:=]{1,300}):(?P<expert>[0-9]{1,5})=(?P<how>off|forced|[+-][0-9.]{1,9}|x[0-9.]{1,9})")
_LAYER = re.compile(r"(?:(?P<stack>[a-z]+)\.)?(?P<layer>[0-9]{1,5})")


@dataclass(frozen=True)
class Change:
    """One expert of one router, and what happens to it."""

    site: Site
    expert: int
    how: str  # off | forced | bias | weight
    value: float = 0.0


def edits_of(sites: Sequence[Site], texts: Sequence[str]) -> list[Edit]:
    """The edits that `texts` ask for. InputError for one that means nothing, or no expert that is there."""
    if len(texts) > MOST:
        raise InputError(f"{len(texts)} changes of experts are asked for: {MOST} at most are made at once")
    changes = [change for text in texts for change in read_change(sites, text)]
    seen: set[tuple[str, int]] = set()
    for change in changes:
        if (change.site.path, change.expert) in seen:
            raise InputError(f"expert {change.expert} of {change.site.path} is changed twice: say one thing of it")
        seen.add((change.site.path, change.expert))
    return [edit for site in sites for edit in _of_site(site, [c for c in changes if c.site is site])]


def read_change(sites: Sequence[Site], text: str) -> list[Change]:
    """One change, in every router that its place means. InputError as of `edits_of`."""
    found = _ONE.fullmatch(text)
    if found is None:
        raise InputError(f"{text[:80]!r} is no change of an expert: write LAYER:EXPERT=off, =forced, =+1.5 (nats) or =x0.5")
    here, expert = _routers(sites, found["place"]), int(found["expert"])
    for site in here:
        if expert >= site.n_experts:
            raise InputError(f"router {site.path} has no expert {expert}: its experts are 0 to {site.n_experts - 1}")
    how = found["how"]
    if how in ("off", "forced"):
        return [Change(site, expert, how) for site in here]
    try:
        value = float(how.lstrip("x"))
    except ValueError as error:
        raise InputError(f"{how!r} in {text[:80]!r} is no number: write it as +1.5, -2 or x0.5") from error
    return [Change(site, expert, "weight" if how[0] == "x" else "bias", value) for site in here]


def place_of(sites: Sequence[Site], site: Site) -> str:
    """How a router is written: by its layer where that says which one it is, else by its stack too, else by its path."""
    ways = [str(site.layer), f"{site.stack}.{site.layer}"] if site.layer is not None else []
    return next((way for way in ways if _means(sites, way) == [site]), site.path)


def _means(sites: Sequence[Site], place: str) -> list[Site]:
    try:
        return _routers(sites, place)
    except InputError:
        return []


def _routers(sites: Sequence[Site], place: str) -> list[Site]:
    layer = _LAYER.fullmatch(place)
    if layer is None or any(site.path == place for site in sites):
        return chosen(sites, router=place)
    return chosen(sites, int(layer["layer"]), layer["stack"])


def _of_site(site: Site, changes: Iterable[Change]) -> list[Edit]:
    by: dict[str, dict[int, float]] = {}
    for change in changes:
        by.setdefault(change.how, {})[change.expert] = change.value
    return [edit for how, make in _MAKERS.items() if how in by for edit in [make(site, by[how])]]


def _off(site: Site, experts: Mapping[int, float]) -> Edit:
    kind: Any = Zero if no_next(site) else RouteAround
    return kind(router=site.path, experts=sorted(experts))  # type: ignore[no-any-return]


_MAKERS: dict[str, Any] = {
    "bias": lambda site, experts: Bias(router=site.path, added=dict(experts)),
    "off": _off,
    "forced": lambda site, experts: Force(router=site.path, experts=sorted(experts)),
    "weight": lambda site, experts: Weigh(router=site.path, factors=dict(experts)),
}
