"""Where a model meets a store."""

from .batches import check_plan, trace
from .identity import SequenceInfo
from .options import Options
from .session import Tracer

__all__ = ["Options", "SequenceInfo", "Tracer", "check_plan", "trace"]
