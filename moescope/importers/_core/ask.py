"""What an importer is given: the model, the user's options, a place for notes; and how it answers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InputError
from .captured import Captured, Counts, Fault, Notes
from .model import Model

Item = Captured | Counts | Fault
"""What a reader yields; a Fault stands for one sequence that is refused, and others follow."""


@dataclass
class Ask:
    """One import. `options`: KEY=VALUE of the user, by name; each importer says in OPTIONS which it takes."""

    notes: Notes
    model: Model | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    step: Callable[[int], object] = lambda read: None
    name: str | None = None
    files: int = 1  # that are read one after another

    def need(self, what: str) -> Model:
        """The model. InputError where the user did not say which, and the file does not."""
        if self.model is None:
            raise InputError(
                f"{what} does not say which layers have routers and over how many experts: give --model (the model's "
                f"folder, its "
                "config.json or its name on the hub), or --experts, --top-k and --layers"
            )
        return self.model

    def whole(self, name: str) -> int | None:
        """An option that is a whole number."""
        value = self.options.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name}={value} is no whole number from 0 on")
        return value

    def settle(self, **facts: Any) -> Model:
        """What the file says of its model, where the user has not said it. InputError where the two disagree."""
        if self.model is None:
            self.model = Model(**facts)
            return self.model
        for name in ("experts", "top_k"):
            if name in facts and facts[name] is not None and facts[name] != getattr(self.model, name):
                raise InputError(
                    f"the capture says {facts[name]} {'experts' if name == 'experts' else 'experts per decision'}, and --model "
                    f"{self.model.name} {getattr(self.model, name)}: give the model that was served"
                )
        return self.model

    def unordered(self) -> None:
        """Say that the order of experts is not that of their weights."""
        if self.model is not None:
            self.model = replace(self.model, by_weight=False)


def tried(make: Callable[[], Item | None]) -> Iterator[Item]:
    """What `make` gives, if anything; or the Fault that it raises."""
    try:
        found = make()
    except Fault as fault:
        found = fault
    if found is not None:
        yield found
