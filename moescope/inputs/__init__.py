"""Reading what a user passes as `--data`: texts, labelled corpora, images, data sets. No model library is loaded.

Each public module of this folder is one format, found by discover (the entry point group is `moescope.inputs`).
"""

from ._reading.digest import Digest
from ._reading.labels.align import align, label_tokens
from ._reading.labels.spelled import spell
from ._reading.media.medium import Medium
from ._reading.media.thumbnail import thumbnail
from ._reading.read import read, stream
from ._reading.shipped import shipped
from ._reading.types import Dataset, Example, Lazy, Span, Stream, Word, image_shapes, one_shape

__all__ = [
    "Dataset", "Digest", "Example", "Lazy", "Medium", "Span", "Stream", "Word",
    "align", "image_shapes", "label_tokens", "one_shape", "read", "shipped", "spell", "stream", "thumbnail",
]  # fmt: skip
