"""Steps that generate, and what is in each of their forwards."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from calls import Step
from scene import Rows, Scene, ids_of
from steps import quiet
from transformers import DynamicCache
from witness import AGAIN, Cell

Told = tuple[dict[str, list[Cell]], str | None]


@quiet
def generate(scene: Scene, step: Step, **more: Any) -> None:
    """`generate` in the ways that it has, on prompts padded on the left."""
    how = step.how
    lengths = list(step.lengths)[:1] if how in ("lookup", "chat") else list(step.lengths)
    x, real = ids_of(lengths, "left", step.seed)
    if how == "lookup":
        x, real = x.repeat(1, 3), real.repeat(1, 3)
    settings: dict[str, Any] = {
        "max_new_tokens": 1 + step.parts[0],
        "do_sample": how == "sample",
        "use_cache": how != "uncached",
    }
    ways: dict[str, dict[str, Any]] = {"beams": {"num_beams": 2}, "chunks": {"prefill_chunk_size": step.parts[-1]}, "static":
        {"cache_implementation": "static", "disable_compile": True}, "lookup": {"prompt_lookup_num_tokens": 2},
        "ends": {"eos_token_id": list(range(3, 50)), "pad_token_id": 0}}  # fmt: skip
    settings |= ways.get(how, {})
    told = Generating(scene, x, real, settings.get("eos_token_id", []))
    if how == "chat":
        more["past_key_values"] = DynamicCache(config=scene.model.config)
    scene.witness.tell(told)
    try:
        with torch.no_grad():
            said = scene.note(scene.model.generate(input_ids=x, attention_mask=real.long(), **settings, **more))
            for turn, length in enumerate(step.parts if how == "chat" else ()):
                before = said.shape[1]
                said = torch.cat([said, ids_of([length], "left", step.seed + turn + 1)[0]], 1)
                told.known(said, before)
                said = scene.note(
                    scene.model.generate(input_ids=said, attention_mask=torch.ones_like(said), **settings, **more)
                )
    finally:
        scene.witness.tell(None)


class Generating:
    """What is in each forward of a `generate`, told from the arguments it comes with."""

    def __init__(self, scene: Scene, x: Any, real: Any, ends: list[int]) -> None:
        self.scene, self.ends = scene, ends
        self.prompt, self.real, self.before = (
            x,
            real,
            0,
        )  # before: places of the turns before, the last one made and not yet run
        self.rows: Rows | None = None
        self.over = torch.zeros(len(x), dtype=torch.bool)

    def known(self, x: Any, before: int) -> None:
        """The next turn begins with (1, T) ids, of which so many were said before."""
        self.before, self.prompt, self.real = before, x, torch.ones_like(x, dtype=torch.bool)

    def __call__(self, inputs: Mapping[str, Any]) -> Told:
        """Cells and phase."""
        both = self.scene.model.config.is_encoder_decoder
        if both and inputs.get("encoder_outputs") is None:
            return {"encoder": self.scene.rows(len(self.prompt)).cells(self.prompt, self.real)}, None
        x = inputs["decoder_input_ids" if both else "input_ids"]
        cache = inputs.get("past_key_values")
        first = int(cache.get_seq_length()) if cache is not None and inputs.get("use_cache", True) else 0
        prompt = torch.ones(len(x), 1, dtype=torch.bool) if both else self.real.repeat_interleave(len(x) // len(self.real), 0)
        length = prompt.shape[1]
        column = torch.arange(first, first + x.shape[1])
        if first == 0 or self.rows is None:
            self.rows = self.scene.rows(len(x))
        known = torch.cat([prompt, torch.ones(len(x), max(0, first + x.shape[1] - length), dtype=torch.bool)], 1)
        self.rows.counts = known[:, :first].sum(1).tolist()
        real = known[:, column].clone()
        made = column >= length
        if self.ends:
            self._end(x, real, made)
        cells = self.rows.cells(x, real, made.expand(len(x), -1))
        if first == 0:  # without a cache, or at its beginning
            cells = [replace(c, row=AGAIN) for c in cells] if cache is None else cells
        cells = [replace(c, generated=None) if first + c.place < self.before else c for c in cells]
        return {"decoder": cells}, "prefill" if not made.any() else "decode" if bool(made.all()) else None

    def _end(self, x: Any, real: Any, made: Any) -> None:
        for place in made.nonzero()[:, 0].tolist():
            real[:, place] &= ~self.over
            self.over |= torch.isin(x[:, place], torch.tensor(self.ends))


class Stops:
    """A streamer that raises at its third word."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error, self.count = error, 0

    def put(self, _: Any) -> None:
        """Count, and raise."""
        self.count += 1
        if self.count == 3:
            raise self.error("stop")

    def end(self) -> None:
        """Nothing."""


def streamer(scene: Scene, step: Step) -> None:
    """A generation that the user's own code breaks off between two forwards."""
    error = {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[step.how]
    one = Step("generate", "greedy", step.seed, step.lengths[:1], (3,))
    try:
        generate(scene, one, streamer=Stops(error))
    except error as caught:
        scene.note(type(caught).__name__)
