"""Small forward passes are held a moment and handed over together: a decode step alone is too little to be worth a hand-over.

What is held are references, so each tensor's version is noted: a model that writes its next decision into the same tensor is
refused instead of being recorded wrongly. Tensors without a version (inference mode) and large forwards are not held.
"""

import time
from typing import Any

from torch import Tensor

from ...contracts import Record
from ...errors import ModelError
from ..options import Options
from .record_batches import Copier, Forward, Job, Routed, batch_records

_BYTES = 1 << 16  # from which a forward goes by itself
_SECONDS = 1.0  # after which what is held goes with the next forward


class ForwardBuffer:
    """Forwards that were not handed over yet; `take` makes a job of them."""

    def __init__(self, options: Options) -> None:
        self.options, self.copier = options, Copier()
        self._most = 1 if options.monitor else options.hold
        self._forwards: list[Forward] = []
        self._routed: list[Routed] = []
        self._tensors: list[Tensor] = []
        self._versions: list[int] = []
        self._since = 0.0

    def add(self, forward: Forward, routed: list[tuple[Record, Any]]) -> bool:
        """Hold a forward; whether it is time to `take`."""
        if not self._forwards:
            self._since = time.monotonic()
        number = len(self._forwards)
        self._forwards.append(forward)
        self._routed += [(record, stream, number) for record, stream in routed]
        if self._most == 1 or sum([record.weights.nbytes for record, _ in routed]) > _BYTES:
            return True
        tensors = [t for record, _ in routed for t in (record.experts, record.weights, record.logits) if t is not None]
        try:
            self._versions += [tensor._version for tensor in tensors]
        except RuntimeError:  # made in inference mode
            return True
        self._tensors += tensors
        return number + 1 >= self._most or time.monotonic() - self._since > _SECONDS

    def take(self, progress: dict[str, Any] | None = None) -> Job | None:
        """What is held, stacked and on its way to the host, with what the run can say then; None if there is nothing."""
        if not self._forwards:
            return None
        if [tensor._version for tensor in self._tensors] != self._versions:
            raise ModelError(
                "the model writes one forward's routing into the tensors of the last, so forwards cannot be held and stored "
                "together; trace with hold=1"
            )
        self._forwards[-1].progress = progress
        job = Job(self._forwards, batch_records(self._routed, self.options))
        self.drop()
        return self.copier.send(job)

    def drop(self) -> None:
        """Hold nothing."""
        self._forwards, self._routed, self._tensors, self._versions = [], [], [], []
