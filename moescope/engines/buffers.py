"""What routers return in one forward, in memory that does not move: a CUDA graph that was captured over it writes there at
every replay."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
MISSING = -1
_CHECKED = 64  # rows of a forward whose logits are kept


@dataclass
class Snapshot:
    """A copy of some rows on the host, or on its way there."""

    ids: torch.Tensor  # (routers, rows, k) int32, -1 where a router wrote nothing
    weights: torch.Tensor  # (routers, rows, k) float32
    beside: dict[str, torch.Tensor]  # what was copied with them
    event: Any = None

    def arrays(self) -> tuple[Array, Array, dict[str, Array]]:
        """As NumPy arrays, once the copy is complete."""
        if self.event is not None:
            self.event.synchronize()
        return self.ids.numpy(), self.weights.numpy(), {name: value.numpy() for name, value in self.beside.items()}


class Buffers:
    """Static buffers of all routers of a model for the longest batch.

    They are poisoned before each forward: rows that a router did not write stay -1 and are no decision, whatever the forward
    before it left.
    """

    def __init__(self, routers: int, rows: int, k: int, device: torch.device | str, experts: int) -> None:
        """Of the first rows the logits are held too, (routers, 64 or fewer, experts) float32."""
        self.logits = torch.zeros((routers, min(rows, _CHECKED), experts), dtype=torch.float32, device=device)
        self.ids = torch.full((routers, rows, k), MISSING, dtype=torch.int32, device=device)
        self.weights = torch.zeros((routers, rows, k), dtype=torch.float32, device=device)

    def poison(self, rows: int) -> None:
        """Forget the first `rows` rows."""
        self.ids[:, :rows].fill_(MISSING)

    def write(self, router: int, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor) -> None:
        """What one router returned for the rows of a forward, (rows, k or more) each, and what it was given, (rows, experts or
        more); what is beyond the buffers is left out. A compiler sees one operation, and nothing of what is in it."""
        step = torch.ops.moescope.written if torch.compiler.is_compiling() else _write
        step(self.ids, self.weights, self.logits, router, weights, ids, logits)

    def snapshot(self, rows: int, beside: dict[str, torch.Tensor]) -> Snapshot:
        """The first `rows` rows, and other tensors of the same moment; on a GPU the copy runs behind the forward, and nobody
        waits for it."""
        parts = {"ids": self.ids[:, :rows], "weights": self.weights[:, :rows], **beside}
        found = {name: _copied(value) for name, value in parts.items()}
        event = None
        if self.ids.is_cuda:
            event = torch.cuda.Event()
            event.record()
        return Snapshot(found.pop("ids"), found.pop("weights"), found, event)


def _write(
    ids: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor, router: int, said: torch.Tensor, chosen: torch.Tensor,
    given: torch.Tensor,
) -> None:  # fmt: skip
    rows, k, few = min(chosen.shape[0], ids.shape[1]), ids.shape[2], min(chosen.shape[0], logits.shape[1])
    ids[router, :rows].copy_(chosen[:rows, :k])
    weights[router, :rows].copy_(said[:rows, :k])
    logits[router, :few].copy_(given[:few, : logits.shape[2]])


torch.library.custom_op("moescope::written", _write, mutates_args=("ids", "weights", "logits"))


def _copied(value: torch.Tensor) -> torch.Tensor:
    if not value.is_cuda:
        return value.detach().clone(memory_format=torch.contiguous_format)
    held = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return held.copy_(value.detach(), non_blocking=True)
