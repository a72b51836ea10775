"""Reading what a user passes as `--data`: texts, labelled corpora, images, data sets. No model library is loaded.

Each public module of this folder is one format, found by discover (the entry point group is `moescope.inputs`).
"""

from moescope.inputs._align import align
from moescope.inputs._read import read
from moescope.inputs._shipped import shipped
from moescope.inputs._spelled import spell
from moescope.inputs._types import Dataset, Example, Lazy, Word, image_shapes, one_shape

__all__ = ["Dataset", "Example", "Lazy", "Word", "align", "image_shapes", "one_shape", "read", "shipped", "spell"]
