"""What each kind of step does: run by `calls.play`, one function for each of `calls.KINDS`."""

import copy
import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from calls import Rows, Scene, Step, batch, ids_of, mask_of, simple
from torch import nn
from transformers import DynamicCache
from witness import AGAIN, Cell

EXPERTS = {"DeepseekV3NaiveMoe": 16, "DeepseekV3Experts": 16, "MixtralExperts": 8, "GptOssExperts": 8, "ZayaExperts": 8}
Told = tuple[dict[str, list[Cell]], str | None]


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


def quiet(step: Callable[[Scene, Step], Any]) -> Callable[[Scene, Step], Any]:
    """A step that users take in evaluation mode."""

    def taken(scene: Scene, one: Step) -> Any:
        training = scene.model.training
        scene.model.eval()
        step(scene, one)
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
    settings |= {"beams": {"num_beams": 2}, "chunks": {"prefill_chunk_size": step.parts[-1]}, "static":
        {"cache_implementation": "static", "disable_compile": True}, "lookup": {"prompt_lookup_num_tokens": 2},
        "ends": {"eos_token_id": list(range(3, 50)), "pad_token_id": 0}}.get(how, {})  # fmt: skip
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
    except BaseException as caught:
        scene.note(type(caught).__name__)


def _experts(scene: Scene) -> list[Any]:
    return [m for n, m in scene.model.named_modules() if n.endswith(".experts")]


def _other(kind: str, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Other experts with half the weight; masks (Switch) turn their last axis."""
    hidden, chosen, weights = args
    if kind == "SwitchTransformersExperts":
        return hidden, chosen.roll(1, -1), weights * 0.5
    if kind == "NllbMoeExperts":
        return hidden, chosen, weights * 0.5
    return hidden, (chosen + 1) % EXPERTS[kind], weights * 0.5


def _named(kind: str, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _other(kind, _, args), kwargs


def _everywhere(model: Any, module: Any, args: tuple[Any, ...]) -> Any:
    return _other(type(module).__name__, module, args) if module in model else None


def _less(_: Any, __: Any, output: Any) -> Any:
    """A router's last weights or logits, halved in a new tuple."""
    return (*output[:1], output[1] * 0.5 if output[1].is_floating_point() else output[1], *output[2:])


def _half(_: Any, __: Any, output: Any) -> Any:
    return output * 0.5


def _same(_: Any, args: Any, kwargs: Any) -> Any:
    return args, dict(kwargs)


def hook(scene: Scene, step: Step) -> None:
    """A user's hook: before the experts (last, or first of all), after a router, after the experts, before the model."""
    experts = _experts(scene)[step.seed % len(_experts(scene))]
    if step.how == "experts named":
        scene.hooks.append(experts.register_forward_pre_hook(partial(_named, type(experts).__name__), with_kwargs=True))
    elif step.how == "everywhere":
        scene.hooks.append(nn.modules.module.register_module_forward_pre_hook(partial(_everywhere, {experts})))
    elif step.how.startswith("experts"):
        before = partial(_other, type(experts).__name__)
        scene.hooks.append(experts.register_forward_pre_hook(before, prepend=step.how.endswith("first")))
    elif step.how == "router":
        names = {n: m for n, m in scene.model.named_modules() if n.rpartition(".")[2] in ("gate", "router")}
        routers = [m for n, m in names.items() if any(x.startswith(n.rpartition(".")[0]) for x in _paths(scene))]
        scene.hooks.append(routers[step.seed % len(routers)].register_forward_hook(_less))
    elif step.how == "output":
        scene.hooks.append(experts.register_forward_hook(_half))
    else:
        scene.hooks.append(scene.model.register_forward_pre_hook(_same, with_kwargs=True))


def _paths(scene: Scene) -> list[str]:
    return [n for n, _ in scene.model.named_modules() if n.endswith(".experts")]


def unhook(scene: Scene, step: Step) -> None:
    """One of the user's hooks goes."""
    if scene.hooks:
        scene.hooks.pop(step.seed % len(scene.hooks)).remove()


def raises(scene: Scene, step: Step) -> None:
    """A forward that ends by an exception, which the user catches."""
    name, where = step.how.split()
    error = {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[name]

    def stop(*_: Any) -> None:
        raise error("stop")

    experts = _experts(scene)[step.seed % len(_experts(scene))]
    if where == "after":
        handle = experts.register_forward_hook(stop)
    else:
        handle = (scene.model if where == "root" else experts).register_forward_pre_hook(stop)
    try:
        call(scene, Step("call", "", step.seed, step.lengths, (), step.side, "2d"))
    except BaseException as caught:
        scene.note(type(caught).__name__)
    handle.remove()


def train(scene: Scene, step: Step) -> None:
    """A step of training: forward, backward, optimizer."""
    scene.model.train()
    output = call(scene, Step("call", "", step.seed, step.lengths, (), step.side, "2d" if step.form == "4d" else step.form))
    output.logits.float().logsumexp(-1).mean().backward()
    for parameter in scene.model.parameters():
        scene.note(parameter.grad)
    torch.optim.SGD(scene.model.parameters(), lr=0.01).step()
    scene.model.zero_grad()
    scene.model.eval()


def copied(scene: Scene, step: Step) -> None:
    """A copy of the model runs: it is not the model."""
    if step.how == "deep":
        other = copy.deepcopy(scene.model)
    else:
        torch.save(scene.model, held := io.BytesIO())
        held.seek(0)
        other = torch.load(held, weights_only=False)
    scene.note(other(**simple(other)).logits)
    scene.copies = [*scene.copies, other][-1:]


def threads(scene: Scene, step: Step) -> None:
    """Forwards in other threads, one after the other or at once."""
    came: dict[int, Any] = {}

    def work(number: int) -> None:
        inner = Scene(scene.model, scene.witness, None)
        inner._keys = 10_000 * (1 + len(scene.came)) + 100 * number
        call(inner, Step("call", "", step.seed + number, step.lengths, (), step.side, "2d"))
        came[number] = inner.came

    workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
        if step.how == "one":
            worker.join()
    for worker in workers:
        worker.join()
    for number in range(2):
        scene.came += came.get(number, ["a thread failed"])


def opened(scene: Scene, _: Step) -> None:
    """One more Tracer on the same model, at most three."""
    if len(scene.tracers) < 3:
        scene.open()


def closed(scene: Scene, step: Step) -> None:
    """One of the Tracers that are open ends: the first or the last; one is left."""
    there = [n for n, (_, _, last) in enumerate(scene.tracers) if last is None]
    if len(there) > 1:
        scene.close(there[0 if step.how == "first" else -1])


STEPS: dict[str, Callable[[Scene, Step], Any]] = {
    "call": call, "turns": turns, "crop": crop, "select": select, "reorder": reorder, "repeat": repeat, "packed": packed,
    "generate": generate, "streamer": streamer, "hook": hook, "unhook": unhook, "raise": raises, "train": train,
    "copy": copied, "threads": threads, "open": opened, "close": closed,
}  # fmt: skip
