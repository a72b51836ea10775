"""One trace in several processes (see moescope.ranks): every process has a Tracer, the first one's rows are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..contracts import Site
from ..errors import InputError, ModelError
from ..ranks import Ranks, together
from ..store import RunWriter
from ..store.write.change import reset_store
from ..store.write.many.together import Counted, Elsewhere
from .options import Options


class Together:
    """What one process's Tracer does with the others'; alone, nothing."""

    def __init__(self, ranks: Ranks | None) -> None:
        self.ranks = ranks

    @classmethod
    def of(cls, model: nn.Module, options: Options, sites: list[Site], inputs: Mapping[str, Any] | None) -> "Together":
        """Before anything is proved. ModelError for a model that is spread in a way that cannot be traced, InputError unless
        all processes were asked to trace the same model in the same way."""
        ranks = together(model)
        if ranks is not None:
            shapes = {name: tuple(value.shape) for name, value in (inputs or {}).items() if hasattr(value, "shape")}
            routers = [(site.name, site.contract.name, site.n_experts) for site in sites]
            said = {"the model": type(model).__name__, "its routers": routers, "the proof's inputs": shapes}
            ranks.agree(said | {f"option {name}": value for name, value in options.as_dict().items()})
        return cls(ranks)

    @property
    def keeps(self) -> bool:
        """Whether the store is this process's to write."""
        return self.ranks is None or self.ranks.first

    def writer(self, store: Path, head: Any, anew: bool, writes: type[RunWriter] = RunWriter) -> RunWriter:
        """Of the store, which is begun `anew` first; of processes that keep nothing, one beside a store that goes with them."""
        if anew and self.keeps and store.exists():
            reset_store(store)
        if self.ranks is None:
            return writes.create(store, head)
        if self.ranks.first:
            return Counted.create(store, head)
        return Elsewhere.beside(head)

    def compare(self, writer: RunWriter) -> None:
        """ModelError, on every rank, and the run discarded, unless all of them decided the same for the same tokens."""
        if self.ranks is None or not isinstance(writer, Counted):
            return
        seen = self.ranks.all(writer.seen)
        for number, theirs in enumerate(seen):
            if theirs != seen[0]:
                writer.discard()
                raise ModelError(
                    f"what rank {number} of the model decided is not what rank 0 did ({theirs[0]:,} and {seen[0][0]:,} rows): "
                    "they were given other tokens, or compute otherwise; nothing of this run is kept"
                )

    def shared(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        return value if self.ranks is None else self.ranks.shared(value)


def agree(model: nn.Module, resume: bool, said: Mapping[str, Any]) -> None:
    """InputError unless every process that runs the model is to trace the same; and where one would go on with a trace."""
    ranks = together(model)
    if ranks is not None and resume:
        raise InputError("a trace in several processes cannot be gone on with; trace without --resume, and keep what is there "
                         "with moescope recover")  # fmt: skip
    if ranks is not None:
        ranks.agree(said)
