"""A trace cut into stretches of so many batches, each with the keys that it should begin with."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ...errors import InputError
from ...store.write.many.stretches import Run
from ..data.batching import Batch, batches_of
from ..data.drawing import Drawn
from ..options import Options
from ..planning import Planned


@dataclass(frozen=True)
class Stretch:
    """So many batches in a row: their number among the stretches, the keys before them, and the forwards (`steps`)."""

    number: int
    batches: list[Batch]
    keys: dict[str, int]
    steps: int


@dataclass
class Keys:
    """The keys that batches take, counted by what is in them; foretold for texts that are only read.

    Where they are wrong (images, generated tokens, encoders) the keys are moved when the stretch gets its place.
    """

    options: Options
    steps: int = 0
    next: dict[str, int] = field(default_factory=dict)

    def pass_over(self, batch: Batch) -> None:
        """One more batch is before what follows."""
        if self.steps % self.options.every == 0:
            taken = {"forward": 1, "sequence": len(batch.windows), "token": sum(map(len, batch.windows))}
            self.next = {key: self.next.get(key, 0) + count for key, count in taken.items()}
        self.steps += 1


def stretches(planned: Planned, run: Run) -> tuple[Drawn, Iterator[Stretch]]:
    """All stretches behind what was done, and what draws them. InputError where the data are not those that were traced."""
    begun, drawn = run.begun, planned.drawn
    if planned.rows is None:  # a stream, which is gone through once
        drawn = Drawn(planned.loaded, planned.read(), planned.asked, begun.get("place"))
    keys = Keys(planned.options, begun.get("resume", {}).get("steps", 0), dict(begun.get("next", {})))
    return drawn, _cut(batches_of(drawn, planned.rows, run.done), run.size, keys)


def _cut(batches: Iterator[Batch], size: int, keys: Keys) -> Iterator[Stretch]:
    number = 0
    while some := list(islice(batches, size)):
        yield Stretch(number, some, dict(keys.next), keys.steps)
        for batch in some:
            keys.pass_over(batch)
        number += 1


def foretold(planned: Planned) -> bool:
    """Whether the keys of its tokens are known before they are traced: texts that a decoder reads."""
    config = getattr(planned.loaded.model, "config", None)
    return (
        planned.loaded.reads == "text"
        and not planned.asked.generate
        and not getattr(config, "is_encoder_decoder", False)
        and not any(window.asked is not None for window in planned.rows or ())
    )


def check_split(planned: Planned) -> None:
    """InputError for a trace that many processes cannot make."""
    if planned.loaded.pipe is not None:
        raise _refused("a pipeline is proved on what its denoiser is first called with")
    if planned.options.activations:
        raise _refused("activations are summed up over all tokens, and their sums are not kept by stretch (--measure)")
    if not foretold(planned) and (asked := _by_number(planned.options)):
        raise _refused(f"{asked} by its number in the run, which is not known before what is before it has been traced")


def _by_number(options: Options) -> str | None:
    if options.every > 1:
        return "--every chooses a forward"
    return "--logits of a share chooses a token" if 0 < options.logits < 1 or options.fraction < 1 else None


def _refused(why: str) -> InputError:
    return InputError(f"this trace cannot be made by several workers: {why}; trace it with one process")
