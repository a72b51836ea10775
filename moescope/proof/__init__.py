"""Proof before trust: what would be stored is what the layers executed."""

from .inputs import example_inputs
from .prove import Proved, edited, observed, prove, stored, tensors

__all__ = ["Proved", "edited", "example_inputs", "observed", "prove", "stored", "tensors"]
