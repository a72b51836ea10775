"""What a run or a layer has not, and what to do about it: sentences that pages show instead of figures of nothing."""

from typing import Any

from moescope.app.queries import store_access
from moescope.app.queries.layers import Layer
from moescope.store import imported

Row = dict[str, Any]
Words = tuple[str, str]


def decisions(run: Row, layer: Layer | None = None) -> Words | None:
    """Of a run that holds counts alone; of a layer that is in the model, and of which nothing was recorded."""
    if imported.counts_only(run["capture"]):
        return (
            "This run holds counts of experts alone",
            "Its capture names no token and no decision. What is known: Load and entropy, and the views `expert_load` and "
            "`load_balance` on the page SQL.",
        )
    if layer is not None and not looked(layer):
        return (
            f"No decision of {layer.label} was recorded",
            "The model has this layer, the record has nothing of it: choose another one.",
        )
    return None


def ablating(run: Row) -> str:
    """The command that takes experts of the run's model away; an imported run names a description, and no model to run."""
    known = imported.source(run["capture"]) is None
    model, data = (run["model_name"], run["dataset"] or "DATA") if known else ("MODEL", "DATA")
    return f"moescope ablate {model} --data {data} --store {store_access.path().name}"


def order(run: Row) -> Words | None:
    """Of a run whose first choices are not known."""
    if imported.ranked(run["capture"]):
        return None
    return decisions(run) or (
        "First choices are not known",
        "This run was imported from a capture whose order of experts is not that of their weights; sets, loads and pairs "
        "are known.",
    )


def looked(layer: Layer) -> int:
    """Tokens that a router looked at."""
    found = store_access.rows("select decisions from decision_rollup where router = ?", layer.router)
    return int(found[0]["decisions"] or 0) if found else 0


def pairs(run: Row, layer: Layer) -> Words:
    """Why no two experts of a layer ran for the same token."""
    if none := decisions(run, layer):
        return none
    return "No pairs in this layer", (
        "Top-1 routing has none: every token runs one expert." if layer.top_k == 1 else "No token ran two of its experts."
    )


def beyond(run: Row, layer: Layer, known: list[Layer], after: bool) -> Words:
    """Why no first choice leads from a layer to its neighbour, of the layers `known`."""
    if none := decisions(run, layer):
        return none
    same = [x.router for x in known if x.stack == layer.stack]
    side = "next" if after else "earlier"
    if layer.router == same[-1 if after else 0]:
        other = "Choose an earlier layer" if after else "Choose a later layer"
        return f"No {side} layer", f"{other}; transitions need at least two traced layers of one stack."
    return f"Nothing is known of the {side} layer", "None of these tokens has a first choice in both."
