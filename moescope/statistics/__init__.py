"""Numbers from counts, without a store: resampling and intervals over documents, nulls, information, participation.

Arrays of counts carry their cells on the last axes; everything is vectorised over leading axes. Information is in bits.
"""

from ._types import Array
from .common_mean import common_draws
from .dealing import dealt
from .information import entropy, jensen_shannon, miller_madow, mutual_information, normalized_information
from .loads import gini, max_violation, shares, variation
from .resampling import (
    DRAWS,
    LEVEL,
    MIN_UNITS,
    bootstrap_weights,
    document_draws,
    interval,
    orders,
    over_documents,
    permuted,
    resampled,
)
from .significance import fdr, p_value, t_tail

__all__ = [
    "DRAWS", "LEVEL", "MIN_UNITS", "Array", "bootstrap_weights", "common_draws", "dealt", "document_draws", "entropy", "fdr",
    "gini", "interval", "jensen_shannon", "max_violation", "miller_madow", "mutual_information", "normalized_information",
    "orders", "over_documents", "p_value", "permuted", "resampled", "shares", "t_tail", "variation",
]  # fmt: skip
