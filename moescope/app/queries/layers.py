"""Routers as readers of a page know them."""

from moescope.show.layers import Layer

__all__ = ["Layer"]
