"""Run a program on a copy of its family's model, traced or not."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import around
import generations
import numpy as np
import steps
import torch
from calls import ENDINGS, Program, Step
from scene import Scene, pristine, simple
from witness import Call, Witness, state

STEPS: dict[str, Callable[[Scene, Step], Any]] = {
    "call": steps.call,
    "turns": steps.turns,
    "crop": steps.crop,
    "select": steps.select,
    "reorder": steps.reorder,
    "repeat": steps.repeat,
    "packed": steps.packed,
    "generate": generations.generate,
    "streamer": generations.streamer,
    "hook": around.hook,
    "unhook": around.unhook,
    "raise": around.raises,
    "train": around.train,
    "copy": around.copied,
    "threads": around.threads,
    "open": around.opened,
    "close": around.closed,
}
"""What each kind of step does: all of `calls.KINDS`."""


@dataclass
class Played:
    """What a program left."""

    came: list[Any]
    state: dict[str, Any]
    random: list[Any]
    tracers: list[tuple[Any, list[Call]]]


def play(program: Program, folder: Path | None) -> Played:
    """Run a program on a fresh copy of its family's model; traced into `folder`, or untraced."""
    model = copy.deepcopy(pristine(program.family))
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(program.seed)
    scene = Scene(model, Witness(model), folder)
    with scene.witness.watching():
        for how in program.before:
            around.hook(scene, Step("hook", how))
        try:
            scene.open()
            for step in program.steps:
                STEPS[step.kind](scene, step)
        finally:
            for number in reversed(range(len(scene.tracers))):
                scene.close(number, ENDINGS[program.ending] if number == 0 else None)
        after = Step("call", lengths=(4,), form="none")
        STEPS["call"](scene, after)
        for other in scene.copies:
            scene.note(other(**simple(other)).logits)
    for handle in scene.hooks:
        handle.remove()
    generators = [torch.get_rng_state(), random.getstate(), str(np.random.get_state())]
    runs = [(tracer, scene.witness.calls[first:last]) for tracer, first, last in scene.tracers]
    return Played(scene.came, state(model), generators, runs)
