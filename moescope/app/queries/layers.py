"""Routers as readers of a page know them."""

from moescope.app.queries import store_access
from moescope.show.layers import Layer

__all__ = ["Layer", "each"]
EACH = """
select (select sum(assignments) from load_rollup where router = ?) / nullif(decisions, 0) as each
from decision_rollup where router = ?"""


def each(layer: Layer) -> float:
    """Experts of a token: top-k, or the mean of those that ran where it varies."""
    found = [] if layer.top_k else store_access.rows(EACH, layer.router, layer.router)
    return float(layer.top_k or (found[0]["each"] if found else 1) or 1)
