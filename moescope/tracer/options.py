"""What to record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..contracts import Site
from ..errors import InputError
from ..store.physical.tables import STEPS

SUMMARIES = tuple(STEPS)


@dataclass(frozen=True)
class Options:
    """Experts are always recorded, in the order of their weights; the rest can be chosen.

    weights: what multiplied each expert. summaries: of every decision log_sum_exp, entropy and margin (True), none (False), or
    those named; of routers that compute in bfloat16 or float16 they are kept in steps of 2^-10 nats (margin: 2^-16), below what
    such logits can tell. logits: all router logits too, of this share of the tokens (True: of all). predictions: the vocabulary
    id that the model's head ranks first after each token, as a token label `predicted_id`. layers: only these layers.
    every: only each n-th forward (with monitor: each n-th optimizer step, with all its micro-batches, and each n-th batch of an
    evaluation); fraction: only this share of its tokens, chosen by their key. monitor: measures of every router at every
    recorded step (see handover/health.py, training_steps.py), into `measures` and view `training`. activations: importance,
    dimensionality (see activations/observers.py). commit_rows, commit_seconds: a shard is made durable at the first forward (or
    batch) after either. max_bytes: what may wait to be written before the model is made to wait. hold: so many small forwards
    (decode steps) are handed over together. pictures: so many pictures and frames that texts speak of are kept, made small, for
    pages to show.
    """

    weights: bool = True
    summaries: bool | Sequence[str] = True
    logits: float = 0.0
    predictions: bool = False
    layers: Sequence[int] | None = None
    every: int = 1
    fraction: float = 1.0
    monitor: bool = False
    activations: Sequence[str] = ()
    commit_rows: int = 1 << 20
    commit_seconds: float = 10.0
    max_bytes: int = 256 << 20
    hold: int = 64
    pictures: int = 1000

    def __post_init__(self) -> None:
        asked = SUMMARIES if self.summaries is True else tuple(self.summaries or ())
        if unknown := set(asked) - set(SUMMARIES):
            raise InputError(f"there is no summary {min(unknown)}: there are {', '.join(SUMMARIES)}")
        object.__setattr__(self, "summaries", asked)

    def choose(self, sites: list[Site]) -> list[Site]:
        """The routers asked for. InputError if a layer has none."""
        if self.layers is None:
            return sites
        there = sorted({site.layer for site in sites if site.layer is not None})
        if missing := sorted(set(self.layers) - set(there)):
            raise InputError(
                f"no router in layer {missing[0]}: the layers with a router are {', '.join(map(str, there)) or 'none'}"
            )
        return [site for site in sites if site.layer in self.layers]

    def as_dict(self) -> dict[str, Any]:
        """For the store."""
        assert not isinstance(self.summaries, bool)
        return asdict(self) | {
            "summaries": list(self.summaries),
            "layers": list(self.layers) if self.layers is not None else "all",
        }
