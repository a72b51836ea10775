"""vLLM: routed experts in responses (0.21: lists; 0.22 and later: base64 .npy) and of the offline API (JSON lines, .npz).

A line is a response of /v1/completions, /v1/chat/completions or generate (`enable_return_routed_experts`), with
`return_token_ids`; or {"request": ..., "response": ...}; or what an offline RequestOutput holds: request_id, prompt_token_ids,
outputs with token_ids and routed_experts (lists, or base64 of numpy.save). An .npz has routed_experts_<i>, token_ids_<i>
(prompt and answer) and prompt_len_<i>. Planes are all hidden layers from 0.22 on, and routers in order of creation in 0.21.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ._core.archive import Archive
from ._core.ask import Ask, Item, tried
from ._core.captured import Captured, Fault
from ._core.model import Model
from ._core.planes import alignment, routed_planes
from ._core.reading import Head, Line, lines
from ._forms.responses import Output, captured, numbers_of

OPTIONS = {"prompt_start": "the token at which rows begin, where requests said routed_experts_prompt_start"}


def accepts(head: Head) -> bool:
    """Responses with vLLM's fields, and archives with its arrays."""
    if head.start[:2] == b"PK" and head.path.suffix == ".npz":
        return "routed_experts_0" in Archive(head.path)
    first = head.first.get("response", head.first)
    if not isinstance(first, dict):
        return False
    answers = first.get("choices", first.get("outputs"))
    answer = answers[0] if isinstance(answers, list) and answers and isinstance(answers[0], dict) else {}
    return "routed_experts" in answer or "prompt_routed_experts" in first


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every answer of a file."""
    model = ask.need("a capture of vLLM")
    found = archived(path, ask, model) if path.suffix == ".npz" else _answers(path, ask, model)
    yield from alignment(found, ask.whole("prompt_start"), ask.notes)


def _answers(path: Path, ask: Ask, model: Model) -> Iterator[Item]:
    for line in lines(path, ask.step):
        yield from answers(line, ask, model, path)


def answers(line: Line, ask: Ask, model: Model, path: Path) -> Iterator[Item]:
    """The sequences of one response."""
    return captured(line, lambda one: _captured(one, ask, model, path, line.number))


def _captured(one: Output, ask: Ask, model: Model, path: Path, number: int) -> Captured | None:
    ask.notes.total += 1
    if one.payload is None:
        ask.notes.count("{n} of {total} responses have no routed experts (vLLM gives None for preempted requests): left out")
        return None
    ids, start = numbers_of(one.payload, f"{one.where}: routed_experts")
    created = one.ahead is not None
    if created:
        before, _ = numbers_of(one.ahead, f"{one.where}: prompt_routed_experts")
        ids = _together(before, ids, one.where)
    ids = routed_planes(ids, model, one.where, ask.notes, created or not isinstance(one.payload, str | bytes | dict))
    start = one.start if start is None else start
    return Captured(
        one.where, path.name, number - 1 if number else 0, ids, one.prompt, one.prompt + one.answer, start or 0, one.request,
        one.tokens,
    )  # fmt: skip


def _together(before: Any, after: Any, where: str) -> Any:
    if not after.size:
        return before
    if before.ndim != 3 or before.shape[1:] != after.shape[1:]:
        raise Fault(
            f"{where}: prompt_routed_experts has shape {before.shape} and routed_experts {after.shape}: they are not of one "
            f"request"
        )
    return np.concatenate([before, after])


def archived(path: Path, ask: Ask, model: Model) -> Iterator[Item]:
    """The sequences of an archive of arrays routed_experts_<i>, token_ids_<i> and prompt_len_<i>."""
    archive = Archive(path)
    number = 0
    while f"routed_experts_{number}" in archive:
        yield from tried(partial(_of_arrays, archive, number, ask, model))
        number += 1
    ask.step(path.stat().st_size)


def _of_arrays(archive: Archive, number: int, ask: Ask, model: Model) -> Captured:
    where = f"sequence {number} of {archive.path.name}"
    missing = [n for n in (f"token_ids_{number}", f"prompt_len_{number}") if n not in archive]
    if missing:
        raise Fault(
            f"{where} has no {missing[0]}: save the ids of prompt and answer, and the prompt's length, beside its experts"
        )
    tokens, prompt = archive.read(f"token_ids_{number}"), archive.read(f"prompt_len_{number}")
    if (
        tokens.ndim != 1
        or tokens.dtype.kind not in "iu"
        or prompt.size != 1
        or not 0 <= int(prompt.reshape(-1)[0]) <= len(tokens)
    ):
        raise Fault(f"{where}: token_ids_{number} and prompt_len_{number} are no ids and no length of a prompt among them")
    ids = routed_planes(archive.read(f"routed_experts_{number}"), model, where, ask.notes)
    return Captured(
        where, archive.path.name, number, ids, int(prompt.reshape(-1)[0]), len(tokens), tokens=tokens.astype(np.int64)
    )
