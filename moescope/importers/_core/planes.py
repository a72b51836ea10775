"""Which planes of a capture are layers with a router: engines count all hidden layers, or routers, or count wrongly."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice

import numpy as np

from .ask import Item, tried
from .captured import Array, Captured, Fault, Notes
from .model import Model

_LOOK = 8  # sequences looked at before the first is aligned


def routed_planes(ids: Array, model: Model, where: str, notes: Notes, created: bool = False) -> Array:
    """(rows, routers, k) of (rows, planes, k). `created`: planes are routers in order of creation (vLLM 0.21).

    Fault where there are other planes than the model has layers, or where a dense layer's plane holds experts.
    """
    if ids.ndim != 3:
        raise Fault(f"{where}: routed experts of shape {ids.shape}, where (rows, layers, top-k) is expected")
    planes, routers = ids.shape[1], len(model.routed)
    if planes == routers or not len(ids):
        return ids
    if planes != model.layers:
        several = f"{routers} routers" + (f" in {model.layers} layers" if routers != model.layers else "")
        raise Fault(
            f"{where}: {planes} layers, the model {model.name} has {several}: layers were lost (seen with pipeline "
            f"parallelism, "
            "vLLM 35623), or --model names another model"
        )
    dense = np.setdiff1d(np.arange(model.layers), model.routed)
    empty = np.asarray((ids <= 0).all(axis=(0, 2)))
    behind = bool(empty[routers:].all()) and not empty[:routers].any()
    if created and behind:
        notes.say(
            f"vLLM 0.21 wrote {planes} planes for {routers} routers, in order of creation with empty ones behind: the first "
            f"{routers} were taken for layers {model.routed[0]} to {model.routed[-1]}"
        )
        return ids[:, :routers]
    if empty[dense].all():
        return ids[:, list(model.routed)]
    if empty.all():
        raise Fault(
            f"{where}: every id of every row is 0: nothing was captured (vLLM 54730 and 44116: a monolithic kernel never calls "
            "the capture); capture again"
        )
    layer = int(dense[~empty[dense]][0])
    why = (
        f", and the last {planes - routers} are empty: layers are shifted, as vLLM 0.21 writes them" if behind
        else ": layers are shifted, or --model names another model"
    )  # fmt: skip
    raise Fault(f"{where}: the plane of layer {layer} holds experts, and that layer has no router{why}")


def aligned(one: Captured, given: int | None, inferred: int | None, notes: Notes) -> Captured:
    """The sequence with its rows at their tokens; the last token is never forwarded, so it has no row.

    `given`: where the user says that rows start; `inferred`: how many rows all sequences of the file lack alike.
    """
    expected = one.length - 1
    start = given if given is not None else one.start
    short = expected - start - one.rows
    if short == 0:
        one.start = start
        return one
    if given is None and one.start == 0 and inferred is not None and short == inferred and short <= one.prompt:
        one.start = short
        notes.say(
            f"every sequence has {short} rows fewer than tokens, so rows were taken to start at token {short} "
            "(routed_experts_prompt_start, which responses do not repeat); if rows were lost, this is wrong: say "
            "--prompt-start 0"
        )
        return one
    where = (
        f"{one.where}: {one.rows} rows, where {expected - start} are expected ({one.prompt} tokens of prompt and "
        f"{one.length - one.prompt} of answer, less the last{f', from token {start} on' if start else ''})"
    )
    if short == 1:
        raise Fault(
            f"{where}: one token's row is missing (SGLang 20964), and which one cannot be known; leave it out by --keep-going"
        )
    if short > 0:
        raise Fault(
            f"{where}: {short} rows are missing; if they are the prompt's first (routed_experts_prompt_start), say "
            f"--prompt-start {start + short}, else rows were lost and which cannot be known"
        )
    raise Fault(f"{where}: there are {-short} rows too many, so that rows cannot be told to tokens")


def lacking(sequences: list[Captured]) -> int | None:
    """How many rows all of these sequences lack alike, where it is more than one and there are at least two sequences."""
    missing = {one.length - 1 - one.start - one.rows for one in sequences}
    if len(sequences) < 2 or len(missing) != 1 or any(one.start for one in sequences):
        return None
    (short,) = missing
    return short if short > 1 else None


def alignment(items: Iterable[Item], given: int | None, notes: Notes) -> Iterator[Item]:
    """Every sequence with its rows at their tokens (see `aligned`), faults as they come."""
    flow = iter(items)
    first = list(islice(flow, _LOOK))
    inferred = lacking([one for one in first if isinstance(one, Captured)])
    for item in chain(first, flow):
        if isinstance(item, Captured):
            yield from tried(partial(aligned, item, given, inferred, notes))
        else:
            yield item
