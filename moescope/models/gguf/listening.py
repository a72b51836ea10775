"""What llama.cpp tells while it evaluates its graph: every node by its name, before (is it wanted?) and when it is done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ModelError
from .library import Array, Library

_STEM = b"ffn_moe_"
_WEIGHTS = ("weights", "weights_softmax", "weights_norm", "weights_scaled")
_DOWN = ("down", "down_scaled", "down_biased")
_LOGITS = ("logits", "logits_biased")
_TOLD = ("probs", "probs_biased", "probs_masked", "weighted", *_WEIGHTS, *_LOGITS)
Edited = Callable[[int, Array, Array], tuple[Array, Array] | None]
"""(layer, logits, experts) → (experts, weights) that are to run instead, or None."""


@dataclass
class Heard:
    """One layer in one evaluation. `kinds`: {name of a node: its operation}; arrays as `Executed` has them."""

    kinds: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    scale: float = 1.0
    bias: Array | None = None
    instead: Array | None = None  # weights that are written over those that it computed
    twice: bool = False


class Listener:
    """Called twice for every node. `edited`: see `Edited`; `watched`: whether experts' outputs are wanted of a layer."""

    def __init__(self, library: Library, edited: Edited, watched: Callable[[int], bool]) -> None:
        self._library, self._edited, self._watched = library, edited, watched
        self.heard: dict[int, Heard] = {}
        self.failed: BaseException | None = None

    def begin(self) -> None:
        """Before an evaluation."""
        self.heard, self.failed = {}, None

    def __call__(self, pointer: int, ask: bool, _: Any) -> bool:
        """As llama.cpp calls it; whatever goes wrong ends the evaluation and is raised behind it."""
        try:
            name = self._library.name(pointer)
            if not name.startswith(_STEM):
                return not ask
            what, _, layer = name[len(_STEM) :].decode("ascii", "replace").rpartition("-")
            if not layer.isdigit():
                return not ask
            one = self.heard.setdefault(int(layer), Heard())
            return self._asked(what, int(layer), one, pointer) if ask else self._done(what, int(layer), one, pointer)
        except BaseException as error:
            self.failed = error
            return False

    def _asked(self, what: str, layer: int, one: Heard, pointer: int) -> bool:
        if what in _TOLD:
            one.kinds[what] = self._library.kind(pointer)
        if what == "probs":
            return one.kinds[what] in ("MUL_MAT", "ADD")  # the logits themselves, under a second name
        if what == "topk":
            one.twice = one.twice or "topk" in one.arrays
        if what == "probs_biased":
            one.bias = self._bias(pointer)
        if what in ("out", *_DOWN):
            return self._watched(layer)
        return what in ("topk", *_LOGITS, *_WEIGHTS)

    def _bias(self, pointer: int) -> Array | None:
        source = self._library.source(pointer, 1)
        return None if source is None else self._library.read(source).reshape(-1)

    def _done(self, what: str, layer: int, one: Heard, pointer: int) -> bool:
        read = self._library.read
        if what in (*_LOGITS, "probs"):
            one.arrays["logits"] = read(pointer)
            if self._watched(layer) and one.kinds[what] == "MUL_MAT" and (source := self._library.source(pointer, 1)):
                one.arrays["hidden"] = read(source)
        elif what == "topk":
            one.arrays["topk"] = read(pointer)
            self._instead(layer, one, pointer)
        elif what in _WEIGHTS:
            self._weigh(what, one, pointer)
        elif what in _DOWN:
            one.arrays["parts"] = read(pointer)
        elif "output" not in one.arrays:
            one.arrays["output"] = read(pointer)
        return True

    def _instead(self, layer: int, one: Heard, pointer: int) -> None:
        """Another decision, where one is asked for."""
        if "logits" not in one.arrays:
            raise ModelError(f"llama.cpp gives no logits of the router in layer {layer}, so that its weights cannot be proved")
        other = self._edited(layer, one.arrays["logits"], one.arrays["topk"])
        if other is not None:
            one.arrays["topk"], one.instead = other[0].astype(np.int32), other[1].astype(np.float32)
            self._library.write(pointer, one.arrays["topk"])

    def _weigh(self, what: str, one: Heard, pointer: int) -> None:
        if what == "weights_scaled":
            one.scale = self._library.parameter(pointer)
        if one.instead is not None:
            self._library.write(pointer, one.instead)
        rows = len(one.arrays["topk"])
        one.arrays["weights"] = self._library.read(pointer).reshape(rows, -1)
