"""Times and counts of a run, kept over interruptions."""

import time
from collections.abc import Mapping
from typing import Any

SLOW = 0.05  # share of the model's time spent waiting for the writer from which a run says so


class RunProgress:
    """Wall time from attach, inside the model, and in moescope; the forward passes (`steps`); the routers that `fired`."""

    def __init__(self) -> None:
        self.before = self.model = self.trace = 0.0
        self.steps = 0
        self.fired: set[int] = set()
        self.began = time.perf_counter()

    def start(self, resume: Mapping[str, Any]) -> None:
        """Begin now, from what `progress` said when the run was cut off."""
        self.began, self.steps, self.fired = time.perf_counter(), resume.get("steps", 0), set(resume.get("fired", ()))
        self.before, self.model, self.trace = (resume.get(n, 0.0) for n in ("seconds", "model_seconds", "trace_seconds"))

    def times(self) -> dict[str, float]:
        """The columns of `runs`."""
        seconds = self.before + time.perf_counter() - self.began
        return {"seconds": seconds, "model_seconds": self.model, "trace_seconds": self.trace}

    def progress(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """`said`, and what it takes to go on from here."""
        return {**said, "resume": {"steps": self.steps, "fired": sorted(self.fired), **self.times()}}

    def complaint(self, waited: float) -> list[str]:
        """A sentence if the model waited long for the writing thread."""
        if waited <= SLOW * self.model:
            return []
        return [
            f"the model waited {waited:.1f} s ({100 * waited / max(self.model, 1e-9):.0f} % of its own time) because writing "
            "could not keep up: the disk is slow or busy"
        ]
