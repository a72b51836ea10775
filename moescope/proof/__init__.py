"""Proof before trust: what would be stored is what the layers executed."""

from .checks import stored, tensors
from .inputs import example_inputs, images_per_group
from .prove import Proof, Proved, prove, proving, quiet
from .remembered import proved
from .watching import edited, observed

__all__ = [
    "Proof",
    "Proved",
    "edited",
    "example_inputs",
    "images_per_group",
    "observed",
    "prove",
    "proved",
    "proving",
    "quiet",
    "stored",
    "tensors",
]
