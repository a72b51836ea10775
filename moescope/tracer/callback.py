"""Trace a Transformers `Trainer` while it trains, and say so when routing collapses."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .session import Tracer


class RoutingCallback(TrainerCallback):
    """`Trainer(..., callbacks=[RoutingCallback("train.duckdb", every=50)])`.

    Every n-th forward is recorded (and `fraction` of its tokens), with load entropy, MaxVio, dead experts, dropped share,
    balancing and z-losses of every router in `measures` and view `training`, and in the Trainer's own logs. Load entropy under
    `collapse` (of 1 = even) is said in the log and in the run's warnings at the step where it happens. `tracer` is the Tracer.
    """

    def __init__(
        self, store: str | Path, every: int = 50, fraction: float = 1.0, collapse: float = 0.5, **settings: Any
    ) -> None:
        self.store, self.collapse = store, collapse
        self.settings = {"every": every, "fraction": fraction, "monitor": True, **settings}
        self.tracer: Tracer | None = None
        self._said: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Attach."""
        self.tracer = Tracer(model, self.store, **self.settings).__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the routers' health to the Trainer's logs."""
        if self.tracer is None or logs is None:
            return
        for path, values in self.tracer.health().items():
            logs |= {f"routing/{path}/{name}": value for name, value in values.items()}
            if values["load_entropy"] < self.collapse and path not in self._said:
                self._said.add(path)
                share = f"{100 * values['load_entropy']:.0f} %"
                text = f"routing collapses at {path}: step {state.global_step}, load entropy {share} of even"
                self.tracer.note([text])
                print(f"moescope: {text}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Detach; the run joins its store."""
        if self.tracer is not None:
            self.tracer.__exit__(None, None, None)
