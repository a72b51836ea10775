"""Steps that call a model: alone, and on a kept cache."""

from collections.abc import Callable
from typing import Any

import torch
from calls import Step
from scene import Rows, Scene, batch, ids_of, mask_of
from witness import Cell


def call(scene: Scene, step: Step) -> Any:
    """One forward of a batch of its own; in an encoder–decoder with texts for both sides."""
    x, real = batch(step)
    rows = scene.rows(len(x))
    phase = "train" if scene.model.training else "prefill"
    mask = mask_of(real, step.form, x.shape[1])
    if scene.model.config.is_encoder_decoder:
        y, there = ids_of(list(reversed(real.sum(1).tolist())), "right", step.seed + 1)
        other = scene.rows(len(y))
        inputs = {"decoder_input_ids": y} | (
            {"decoder_attention_mask": mask_of(there, step.form, 0)} if mask is not None else {}
        )
        return scene.call(
            lambda _: ({"encoder": rows.cells(x, real), "decoder": other.cells(y, there)}, phase),
            input_ids=x, attention_mask=mask, **inputs,
        )  # fmt: skip
    inputs = {"input_ids": x}
    if step.how == "embeds":
        inputs = {"inputs_embeds": scene.model.get_input_embeddings()(x).detach()}
    with torch.inference_mode(step.how == "inference" and not scene.model.training):
        cells = [c if step.how != "embeds" else Cell(c.place, c.row, c.position, None, False) for c in rows.cells(x, real)]
        return scene.call(lambda _: ({"decoder": cells}, phase), attention_mask=mask, **inputs)


class Going:
    """A batch on a kept cache."""

    def __init__(self, scene: Scene, step: Step) -> None:
        self.scene, self.step = scene, step
        x, self.real = batch(step)
        self.rows, self.seed = scene.rows(len(x)), step.seed
        self.next = x
        with torch.no_grad():
            self.run(x, self.real, "prefill")

    def run(self, x: Any, real: Any, phase: str | None = None, made: bool | None = False) -> None:
        """Go on with (B, T) ids of which some are real."""
        known = getattr(self, "cache", None)
        mask = mask_of(self.real, self.step.form, x.shape[1])
        cells = self.rows.cells(x, real, made)
        output = self.scene.call(
            lambda _: ({"decoder": cells}, phase), input_ids=x, attention_mask=mask, past_key_values=known, use_cache=True
        )
        self.cache, self.next = output.past_key_values, output.logits[:, -1:].argmax(-1)

    def on(self, length: int, side: str = "left") -> None:
        """Known text of so many tokens in the longest row."""
        self.seed += 1
        lengths = [length] * len(self.rows.keys)
        if self.step.form != "none":
            lengths = [max(1, length - n % 2) for n in range(len(lengths))]
        x, real = ids_of(lengths, side, self.seed)
        self.real = torch.cat([self.real, real], 1)
        same = x.shape[1] == 1 and bool((x == self.next).any())
        self.run(x, real, None if same else "prefill", None if same else False)


def quiet(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that users take in evaluation mode."""

    def taken(scene: Scene, one: Step, **more: Any) -> Any:
        training = scene.model.training
        scene.model.eval()
        try:
            step(scene, one, **more)
        finally:
            scene.model.train(training)

    return taken


@quiet
def turns(scene: Scene, step: Step) -> None:
    """Chat turns, chunks, or (argmax) what the model itself says, one token at a time."""
    going = Going(scene, step)
    for length in step.parts:
        if step.how == "argmax":
            going.real = torch.cat([going.real, torch.ones_like(going.real[:, :1])], 1)
            going.run(going.next, torch.ones_like(going.next, dtype=torch.bool), made=None)
        else:
            going.on(length)


@quiet
def crop(scene: Scene, step: Step) -> None:
    """The end is cut off, and another text put there."""
    going = Going(scene, step)
    for length in step.parts:
        gone = going.real[:, -1:].sum(1)
        going.cache.crop(-1)
        going.real = going.real[:, :-1]
        going.rows.counts = [n - int(g) for n, g in zip(going.rows.counts, gone)]
        going.on(length)


@quiet
def select(scene: Scene, step: Step) -> None:
    """Rows go, or change places."""
    going = Going(scene, step)
    keep = list(reversed(range(len(going.rows.keys))))[: max(1, step.seed % 4)]
    going.cache.batch_select_indices(torch.tensor(keep))
    going.real = going.real[keep]
    going.rows = Rows([going.rows.keys[r] for r in keep], [going.rows.counts[r] for r in keep])
    going.next = going.next[keep]
    going.on(step.parts[0])


@quiet
def reorder(scene: Scene, step: Step) -> None:
    """Hypotheses change places: a row's tokens before are another's, and stay named so."""
    going = Going(scene, step)
    order = list(reversed(range(len(going.rows.keys))))
    going.cache.reorder_cache(torch.tensor(order))
    going.real, going.next = going.real[order], going.next[order]
    going.rows = Rows(going.rows.keys, [going.rows.counts[r] for r in order])
    going.on(step.parts[0])


@quiet
def repeat(scene: Scene, step: Step) -> None:
    """Several continuations of one prompt."""
    going = Going(scene, step)
    going.cache.batch_repeat_interleave(2)
    going.real, going.next = going.real.repeat_interleave(2, 0), going.next.repeat_interleave(2, 0)
    going.rows = Rows([None] * (2 * len(going.rows.keys)), [n for n in going.rows.counts for _ in range(2)])
    going.on(step.parts[0])


@quiet
def packed(scene: Scene, step: Step) -> None:
    """Documents in one row, known by positions that begin again."""
    x, _ = ids_of([sum(step.lengths)], "right", step.seed)
    rows, cells, at = scene.rows(len(step.lengths)), [], 0
    for key, length in zip(rows.keys, step.lengths):
        cells += [Cell(at + n, key, n, int(x[0, at + n]), False) for n in range(length)]
        at += length
    places = torch.cat([torch.arange(n) for n in step.lengths])[None]
    scene.call(lambda _: ({"decoder": cells}, "prefill"), input_ids=x, position_ids=places, use_cache=False)
