"""Where a model meets a store."""

from .batches import trace
from .options import Options
from .planning import check_plan
from .sequences.sequence_info import SequenceInfo
from .session import Tracer

__all__ = ["Options", "SequenceInfo", "Tracer", "check_plan", "trace"]
