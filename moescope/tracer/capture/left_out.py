"""What a run does not hold, counted while it runs, in sentences."""

from dataclasses import dataclass, field

from ...words import listed

SURE = 3  # forwards in which every router fires once, after which nobody asks whether a call lies inside another


@dataclass
class LeftOut:
    """Counts of forwards, and of firings and routers, that nothing is stored of."""

    outside: int = 0  # firings outside of the model's forward
    cut: int = 0  # forwards that ended by an exception
    empty: int = 0  # forwards on tensors without values
    inner: int = 0  # forwards that ran the model inside its own call
    silent: int = 0  # forwards that asked no router
    late: int = 0  # forwards in which routers fired again and again when nobody looked for runs inside any more
    missed: dict[str, int] = field(default_factory=dict)  # routers that did not fire where others of their stack did

    def passed(self, fired: set[int], stacks: dict[int, str], paths: dict[int, str]) -> None:
        """A forward in which only some routers `fired`: counts those of a stack that ran; an encoder need not run every time.

        stacks, paths: of every router, by its key.
        """
        self.silent += not fired
        ran = {stacks[key] for key in fired}
        for key, stack in stacks.items():
            if stack in ran and key not in fired:
                self.missed[paths[key]] = self.missed.get(paths[key], 0) + 1

    def sentences(self, model: str) -> list[str]:
        """What was left out; `model`: its class."""
        counts = {
            "ended by an exception and were left out": self.cut,
            "ran on tensors without values (fake or meta), executed nothing, and were left out": self.empty,
            "ran the model inside its own call (a first pass for weights of adapters, say), and what it decided there was left "
            "out": self.inner,
            "asked no router at all (a kernel that runs past them, say), and nothing is stored of them": self.silent,
        }
        said = [f"{count} forwards {what}" for what, count in counts.items() if count]
        for count in sorted(set(self.missed.values())):
            paths = listed([path for path, n in self.missed.items() if n == count])
            said.append(
                f"{paths} did not fire in {count} forwards in which others of its stack did (its layer was skipped, or a "
                "kernel ran past it): nothing of it is stored there"
            )
        if self.late:
            said.append(
                f"in {self.late} forwards routers fired again and again for the first time after {SURE} in which they had "
                "not: if the model ran itself inside its own call there, these forwards hold what it decided in that run too"
            )
        if self.outside:
            said.append(f"routers fired {self.outside} times outside of a forward of {model}; that is not recorded")
        return said
