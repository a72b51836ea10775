"""Looking on while a model generates: what it could have said next, told after every token; and stopping it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..store.spelling import AS_READ
from .listening import Row

TOP = 8  # alternatives of the next token


@dataclass(eq=False)
class Stop:
    """What ends a generation early: somebody who asks for it, or the time."""

    seconds: float = 120.0
    asked: bool = False
    begun: float = field(default_factory=time.monotonic)

    @property
    def why(self) -> str:
        """stopped, time, or nothing."""
        return "stopped" if self.asked else "time" if time.monotonic() - self.begun > self.seconds else ""


@dataclass(eq=False)
class Watch:
    """Both halves of what `generate` calls at each step: scores before the choice, ids behind it."""

    tokenizer: Any
    told: Callable[[Row], None]  # called once the forward behind the choice is recorded
    stop: Stop
    chosen: int = 0  # tokens so far
    _log_p: Tensor | None = None

    def arguments(self) -> dict[str, Any]:
        """For `generate`."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        return {"logits_processor": LogitsProcessorList([self.look]), "stopping_criteria": StoppingCriteriaList([self.step])}

    def look(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (1, V) that the next token is chosen from; left as they are."""
        self._log_p = torch.log_softmax(scores[0].float(), -1)
        return scores

    def step(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """ids (1, places) with the token that was chosen; (1,) bool, whether that is the end."""
        self.chosen += 1
        self.told(self.next(int(ids[0, -1])))
        return torch.full((len(ids),), bool(self.stop.why), device=ids.device)

    def next(self, chosen: int) -> Row:
        """The alternatives, most probable first, and the one that was `chosen`."""
        assert self._log_p is not None
        values, where = self._log_p.topk(min(TOP, len(self._log_p)))
        among = [[i, text_of(self.tokenizer, i), round(v, 5)] for i, v in zip(where.tolist(), values.tolist())]
        own = {"id": chosen, "text": text_of(self.tokenizer, chosen), "log_p": round(float(self._log_p[chosen]), 5)}
        return {"chosen": own, "alternatives": among}


def text_of(tokenizer: Any, vocab_id: int) -> str:
    """A token as one reads it."""
    if tokenizer is None:
        return f"#{vocab_id}"
    text = tokenizer.decode([vocab_id])
    return str(AS_READ(tokenizer.convert_ids_to_tokens(vocab_id) if "\ufffd" in text or not text else text))


def log_probabilities(model: Any, inputs: dict[str, Tensor], ids: list[int], beside: bool) -> list[float | None]:
    """Of each of `ids` behind those before it (None for the first); `beside`: of the decoder's side, with `inputs` read."""
    row = torch.tensor([ids], device=next(iter(inputs.values())).device)
    with torch.no_grad():
        output = model(**inputs, decoder_input_ids=row) if beside else model(input_ids=row)
    log_p = torch.log_softmax(output.logits[0, :-1].float(), -1)
    found = log_p.gather(-1, row[0, 1:, None])[:, 0].tolist()
    return [None, *(round(value, 5) for value in found)]
