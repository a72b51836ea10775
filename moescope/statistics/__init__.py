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
    GROUPS,
    LEVEL,
    MIN_UNITS,
    bootstrap_weights,
    document_draws,
    grouped,
    information_interval,
    interval,
    orders,
    over_documents,
    permuted,
    resampled,
)
from .significance import FLOOR, curve_tail, document_tail, families, fdr, p_value, skew_of_largest, t_tail
from .studentized import Grouped, Pool, Rates, omnibus

__all__ = [
    "DRAWS", "FLOOR", "GROUPS", "LEVEL", "MIN_UNITS", "Array", "Grouped", "Pool", "Rates", "bootstrap_weights",
    "common_draws", "curve_tail", "dealt", "document_draws", "document_tail", "entropy", "families", "fdr", "gini", "grouped",
    "information_interval", "interval", "jensen_shannon", "max_violation", "miller_madow", "mutual_information",
    "normalized_information", "omnibus", "orders", "over_documents", "p_value", "permuted", "resampled", "shares",
    "skew_of_largest", "t_tail", "variation",
]  # fmt: skip
