"""What to record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..contracts import Site
from ..errors import InputError


@dataclass(frozen=True)
class Options:
    """Experts and weights are always recorded; the rest can be chosen.

    summaries: entropy, log-sum-exp and margin of every decision. logits: all router logits too, of this share of the tokens
    (True: of all). layers: only these layers. every: only each n-th forward; fraction: only this share of its tokens, chosen
    by their key. monitor: measures of every router at every recorded forward (see monitor.py), into `measures`. activations:
    importance, dimensionality (see observers.py). commit_rows, commit_seconds: a shard is made durable at the first forward
    (or batch) after either. max_bytes: what may wait to be written before the model is made to wait.
    """

    summaries: bool = True
    logits: float = 0.0
    layers: Sequence[int] | None = None
    every: int = 1
    fraction: float = 1.0
    monitor: bool = False
    activations: Sequence[str] = ()
    commit_rows: int = 1 << 20
    commit_seconds: float = 10.0
    max_bytes: int = 256 << 20

    def choose(self, sites: list[Site]) -> list[Site]:
        """The routers asked for. InputError if a layer has none."""
        if self.layers is None:
            return sites
        there = sorted({site.layer for site in sites if site.layer is not None})
        if missing := sorted(set(self.layers) - set(there)):
            raise InputError(f"no router in layer {missing[0]}: the layers with a router are {', '.join(map(str, there))}")
        return [site for site in sites if site.layer in self.layers]

    def as_dict(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self) | {"layers": list(self.layers) if self.layers is not None else "all"}
