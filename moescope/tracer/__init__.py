"""Where a model meets a store."""

from .batches import trace
from .identity import SequenceInfo
from .options import Options
from .session import Tracer

__all__ = ["Options", "SequenceInfo", "Tracer", "trace"]
