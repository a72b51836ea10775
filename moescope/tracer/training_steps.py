"""Training steps: which optimizer step a forward belongs to, what is training and what evaluation, and which are recorded."""

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..errors import InputError
from .options import Options

if TYPE_CHECKING:
    from .handover.record_batches import Forward


@dataclass(frozen=True)
class Ended:
    """A step or an evaluation is over: the forwards of its part since the last one are its own."""

    part: str  # train | eval
    step: int
    name: str = ""  # of an evaluation: eval, eval_<data set>, test
    whole: bool = True  # False: it was broken off, and has no measures


class TrainingSteps:
    """Follows the forwards of a run with `monitor` (others have neither steps nor parts).

    A step ends where `step` says so, and in a loop that never says so where an optimizer of the model's parameters steps: the
    forwards before are its micro-batches, however many. Evaluation is what runs in eval mode once training has begun; it ends
    where training goes on. Forwards in training mode without gradients (a rollout, say) are neither.
    """

    def __init__(self, model: nn.Module, options: Options, put: Callable[[Ended], None]) -> None:
        self.model, self.options, self._put = model, options, put
        self.part: str | None = None  # of the forward that runs: train | eval | alone (of a run that does not train)
        self.done = 0  # the last step that is over; without `step`: how many are
        self._forwards = 0
        self._told = self._stepped = False
        self._count: Callable[[], int] | None = None
        self._open = Counter[str]()  # forwards by part since the last end
        self._named: Counter[tuple[str, int]] = Counter()
        self._mine: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self.handles = [register_optimizer_step_post_hook(self._optimizer_stepped)] if options.monitor else []

    def follow(self, count: Callable[[], int]) -> None:
        """`count` says at any time how many steps are done: what is recorded need not wait for its number."""
        self.done, self._told, self._count = count(), True, count

    def opens(self, forwards: int) -> bool:
        """A forward begins, after so many others; whether it is recorded."""
        self.part, self._forwards = self._part() if self.options.monitor else None, forwards
        if torch._C._current_graph_task_id() != -1:  # inside a backward pass: a checkpoint runs it again
            return False
        if self._count is not None and self._count() > self.done:
            self.ends(self._count())
        if self.part == "train":
            self.evaluated()
            if self._stepped and not self._told:
                self._end_step(self.done, self.done + 1)
        if self.part not in ("train", "eval"):
            return forwards % self.options.every == 0
        self._open[self.part] += 1
        count = self.done if self.part == "train" else self._open["eval"] - 1
        return count % self.options.every == 0

    def filed(self, forward: "Forward") -> "Forward":
        """The forward that ran, with the step that it is of, and what it was for."""
        assert forward.row is not None
        forward.part = self.part
        if self.part == "train":
            forward.row["step"], forward.tentative = self.done + self._told, self._count is None
        elif self.part == "alone":
            forward.ended = Ended("alone", self._forwards, "forward")
        elif self.options.monitor:
            forward.row["step"] = self._now()
        if self.part == "eval":
            forward.row["phase"] = "eval"
        return forward

    def _now(self) -> int:
        """How many steps are done."""
        return self.done + (self._stepped and not self._told)

    def ends(self, number: int | None = None) -> None:
        """Step `number` (else: the next) is over. InputError for a number that does not go up, or without `monitor`."""
        if not self.options.monitor:
            raise InputError("step() tells training steps apart for the measures of a run with monitor=True; attach with that")
        number = self.done + 1 if number is None else _whole(number)
        if self._told and number < self.done + bool(self._open["train"]):
            raise InputError(f"step({number}) comes after step({self.done}): the numbers of training steps go up")
        self._told = True
        self.evaluated()
        self._end_step(number, number)

    @property
    def evaluates(self) -> bool:
        """Whether there were forwards of an evaluation that is not over."""
        return bool(self._open["eval"])

    def evaluated(self, name: str = "eval") -> None:
        """The evaluation that runs, if one does, is over."""
        if self._open.pop("eval", 0):
            step = self._now()
            self._named[name, step] += 1
            again = self._named[name, step]
            self._put(Ended("eval", step, name if again == 1 else f"{name} ({again})"))

    def finish(self, whole: bool) -> None:
        """The run ends; what is open ends with it, without measures where it was broken off."""
        for handle in self.handles:
            handle.remove()
        if whole:
            self.evaluated()
        if self._open["train"]:
            over = whole or (self._stepped and not self._told)
            self._put(Ended("train", self.done + self._told, whole=over))

    def _end_step(self, number: int, done: int) -> None:
        if self._open.pop("train", 0):
            self._put(Ended("train", number))
        self.done, self._stepped = done, False

    def _part(self) -> str | None:
        if self.model.training and torch.is_grad_enabled():
            return "train"
        if not self._trains():
            return "alone"
        return None if self.model.training else "eval"

    def _trains(self) -> bool:
        return self._told or bool(self.done or self._open["train"])

    def _optimizer_stepped(self, optimizer: Any, *_: Any) -> None:
        if optimizer not in self._mine:
            own = {id(p) for p in self.model.parameters()}
            self._mine[optimizer] = any(id(p) in own for group in optimizer.param_groups for p in group["params"])
        self._stepped |= self._mine[optimizer] and bool(self._open["train"])


def _whole(number: Any) -> int:
    try:
        found = operator.index(number)
    except TypeError:
        found = -1
    if found < 0 or isinstance(number, bool):
        raise InputError(f"step({number!r}): give the number of the training step that is over, a whole number from 0")
    return found
