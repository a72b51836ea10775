"""Steps around a model's calls: hooks, exceptions, training, copies, threads, Tracers."""

import copy
import io
import threading
from functools import partial
from typing import Any

import torch
from calls import Step
from scene import Scene, simple
from steps import call
from torch import nn

EXPERTS = {"DeepseekV3NaiveMoe": 16, "DeepseekV3Experts": 16, "MixtralExperts": 8, "GptOssExperts": 8, "ZayaExperts": 8}


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
