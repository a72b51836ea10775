"""Trace a Transformers `Trainer` while it trains, and say so when routing collapses."""

import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback

from ..errors import MoescopeError
from .session import Tracer

_GUARDED = ("_run_epoch", "_evaluate", "_finalize_training")  # all that train() does after on_train_begin
_GUARDED_ELSE = ("training_step", "evaluate")


class _Broken(Exception):
    """A run that its end finds unfinished."""


class RoutingCallback(TrainerCallback):
    """`Trainer(..., callbacks=[RoutingCallback("train.duckdb", every=50)])`.

    Records the first of every n optimizer steps, with all its micro-batches (and `fraction` of their tokens), under the
    Trainer's own `global_step`; and apart from them the first of every n batches of each evaluation that runs meanwhile. Load
    entropy, MaxVio, dead experts, dropped share, balancing and z-losses of every router stand in `measures` and view
    `training`, one row per router and step, and in what the Trainer logs (log_history, whatever `report_to` names): as
    `routing/ROUTER/MEASURE` (of step `routing/step`) and `eval_routing/ROUTER/MEASURE`. Load entropy under `collapse` (of 1 =
    even) is said at once and in the run's warnings. Each train() is one run; one that an exception ends is kept as
    `interrupted`; what is evaluated before or after it is in none. `tracer` is the Tracer.
    """

    def __init__(
        self, store: str | Path, every: int = 50, fraction: float = 1.0, collapse: float = 0.5, **settings: Any
    ) -> None:
        self.store, self.collapse = store, collapse
        self.settings = {"every": every, "fraction": fraction, "monitor": True, **settings}
        self.tracer: Tracer | None = None
        self._live = False
        self._said: set[str] = set()
        self._logged = 0
        self._wrapped: list[tuple[Any, str, Any, Any]] = []  # object, method, what it had of its own, what it has now

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Attach."""
        self._end(RuntimeError("the training before this one never ended"))
        self.tracer = Tracer(model, self.store, **self.settings).__enter__()
        self.tracer.steps.follow(lambda: state.global_step)
        self._live, self._said, self._logged = True, set(), 0
        if (trainer := _trainer(state)) is not None:
            self._wrap(trainer, "log", self._logging)
            names = [name for name in _GUARDED if hasattr(trainer, name)]
            for name in names if "_run_epoch" in names else _GUARDED_ELSE:
                self._wrap(trainer, name, self._guarding)
            self._wrap(trainer.callback_handler, "call_event", self._guarding)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An optimizer step is over."""
        if self._live and self.tracer is not None:
            self.tracer.step(state.global_step)  # (if no forward has seen it yet)
            self._watch(*self.tracer.latest("train", settle=False))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the routers' health to logs that did not come by the Trainer's `log`."""
        if logs is not None:
            self._add(logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """An evaluation is over."""
        self._evaluated(metrics or {}, "eval")

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """A prediction is over."""
        self._evaluated(metrics or {}, "test")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Detach; the run joins its store."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Close the run, if one is open; without a forward nothing is stored."""
        if not self._live or self.tracer is None:
            return
        self._live = False
        for owner, name, before, now in reversed(self._wrapped):
            if vars(owner).get(name) is now:
                vars(owner).pop(name) if before is None else setattr(owner, name, before)
        self._wrapped = []
        with suppress(_Broken), ExitStack() as stack:
            stack.push(self.tracer)
            if error is not None:
                raise _Broken from error
            self._watch(*self.tracer.latest("train"))
            if not self.tracer.so_far()["forwards"]:
                raise _Broken

    def _add(self, logs: dict[str, Any]) -> None:
        """Add what is new to logs on their way."""
        if not self._live or self.tracer is None:
            return
        if (prefix := self._evaluated(logs, None)) is not None:
            _, found = self.tracer.latest("eval")
            logs |= {f"{prefix}_{name}": value for name, value in _flat(found).items()}
            return
        step, found = self.tracer.latest("train")
        if found and step > self._logged:
            self._logged = step
            logs |= {"routing/step": step, **_flat(found)}
            self._watch(step, found)

    def _evaluated(self, metrics: dict[str, Any], otherwise: str | None) -> str | None:
        """End the evaluation that these metrics are of, if one is open; gives its name where they say it."""
        said = [key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime") and key != "train_runtime"]
        name = next(iter(said), otherwise)
        if name is None or not self._live or self.tracer is None or not self.tracer.steps.evaluates:
            return None
        self.tracer.steps.evaluated(name)
        return name

    def _watch(self, step: int, found: dict[str, dict[str, float]]) -> None:
        for path, values in found.items():
            if values["load_entropy"] < self.collapse and path not in self._said and self.tracer is not None:
                self._said.add(path)
                share = f"{100 * values['load_entropy']:.0f} %"
                text = f"routing collapses at {path}: step {step}, load entropy {share} of even"
                self.tracer.note([text])
                print(f"moescope: {text}")

    def _wrap(self, owner: Any, name: str, around: Callable[[Any], Any]) -> None:
        """Put something around a method of one object until the run ends."""
        before = vars(owner).get(name)
        now = around(getattr(owner, name))
        setattr(owner, name, now)
        self._wrapped.append((owner, name, before, now))

    def _logging(self, log: Any) -> Any:
        @wraps(log)
        def wrapper(logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            self._add(logs)
            return log(logs, *args, **kwargs)

        return wrapper

    def _guarding(self, method: Any) -> Any:
        @wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except BaseException as error:
                try:
                    self._end(error)
                except MoescopeError as problem:
                    error.add_note(f"moescope: {problem}")
                raise

        return wrapper


def _trainer(state: Any) -> Any:
    """The Trainer whose state this is: callbacks are not told, so it is looked for among the callers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        one = frame.f_locals.get("self")
        if isinstance(one, Trainer) and one.state is state:
            return one
        frame = frame.f_back
    return None


def _flat(found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"routing/{path}/{name}": value for path, values in found.items() for name, value in values.items()}
