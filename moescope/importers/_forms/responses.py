"""Answers of servers and offline engines: which prompt, which outputs, how many tokens; whatever the envelope is called."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .._core.ask import Item, tried
from .._core.captured import Array, Captured, Fault
from .._core.payload import array_of, shaped
from .._core.reading import Line

_PROMPT = ("prompt_token_ids", "prompt_ids", "input_ids")
_OUTPUT = ("token_ids", "output_ids", "completion_token_ids", "output_token_ids")
Object = Mapping[str, Any]


@dataclass
class Output:
    """One answer to one request. `payload`: its routed experts as they came, or None; `ahead`: those of the prompt, where they
    come apart; `prompt`, `answer`: numbers of tokens; `tokens`: ids of both, -1 where not known."""

    where: str
    request: str | None
    payload: Any
    ahead: Any
    prompt: int
    answer: int
    tokens: Array | None
    start: int | None
    kind: str | None = None  # of bare numbers


def outputs(line: Line) -> Iterator[Output]:
    """The answers of a record: a response, or a pair of request and response as people keep them. Fault where it is none."""
    if line.fault is not None:
        raise line.fault
    request, response = _pair(line.value)
    answers = response.get("choices", response.get("outputs"))
    if answers is None and isinstance(response.get("engine_data"), dict):
        response = {**response, **response["engine_data"]}
    if answers is None and isinstance(response.get("nvext"), dict) and isinstance(response["nvext"].get("engine_data"), dict):
        response = {**response, **response["nvext"]["engine_data"]}
    if answers is None:
        answers = [response]
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers) or "error" in response:
        raise Fault(
            f"{line.where} is no answer of a server: it has neither choices nor outputs; keep whole responses, one a line"
        )
    for number, answer in enumerate(answers):
        where = line.where if len(answers) == 1 else f"{line.where}, choice {answer.get('index', number)}"
        yield _output(where, request, response, answer, len(answers))


def captured(line: Line, read: Callable[[Output], Captured | None]) -> Iterator[Item]:
    """The sequences of a record, each answer read by `read`; or the faults that say why one cannot be."""
    try:
        found = list(outputs(line))
    except Fault as fault:
        yield fault
        return
    for one in found:
        yield from tried(partial(read, one))


def _pair(value: Object) -> tuple[Object, Object]:
    response = value.get("response")
    if isinstance(response, dict):
        request = value.get("request")
        outside = {k: v for k, v in value.items() if k not in ("request", "response") and not isinstance(v, dict | list)}
        return {**outside, **(request if isinstance(request, dict) else {})}, response
    return {}, value


def _output(where: str, request: Object, response: Object, answer: Object, n: int) -> Output:
    meta = {**_object(response, "meta_info"), **_object(answer, "meta_info")}
    extra = {**meta, **_object(response, "sgl_ext"), **_object(answer, "sgl_ext")}
    usage = _object(response, "usage")
    prompt_ids = _ids((answer, response, request), _PROMPT, where)
    output_ids = _ids((answer, response) if n == 1 else (answer,), _OUTPUT, where)
    prompt = _count(prompt_ids, meta.get("prompt_tokens", usage.get("prompt_tokens")))
    said = meta.get("completion_tokens", usage.get("completion_tokens") if n == 1 else None)
    answered = _count(output_ids, said)
    if prompt is None or answered is None:
        what = "prompt" if prompt is None else "answer"
        raise Fault(
            f"{where} does not say how many tokens its {what} has (no ids, no usage), so that rows cannot be told to tokens; "
            "keep whole responses, with return_token_ids"
        )
    both = {**response, **answer, **{key: value for key, value in extra.items() if key.startswith("routed_experts")}}
    starts = ("routed_experts_start_len", "routed_experts_prompt_start", "prompt_start")
    start = next(
        (v for s in (both, request) for k in starts if isinstance(v := s.get(k), int) and not isinstance(v, bool)), None
    )
    name = next(
        (str(s[k]) for s in (response, meta, request) for k in ("request_id", "id", "rid") if s.get(k) is not None), None
    )
    return Output(
        where, name if n == 1 or name is None else f"{name}/{answer.get('index', 0)}", both.get("routed_experts"),
        response.get("prompt_routed_experts", answer.get("prompt_routed_experts")), prompt, answered,
        _joined(prompt_ids, output_ids, prompt, answered), start, both.get("routed_experts_dtype"),
    )  # fmt: skip


def _object(value: Object, name: str) -> Object:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _ids(places: tuple[Object, ...], names: tuple[str, ...], where: str) -> Array | None:
    for place in places:
        for name in names:
            if (value := place.get(name)) is not None:
                return _whole(value, f"{where}: {name}")
    return None


def _whole(value: Any, what: str) -> Array:
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise Fault(f"{what} are no list of vocabulary ids: give those of one request") from error
    if found.ndim != 1 or (found.size and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= 2**32)):
        raise Fault(f"{what} are no list of vocabulary ids")
    return found.astype(np.int64)


def _count(ids: Array | None, said: Any) -> int | None:
    if ids is not None:
        return len(ids)
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said < 2**32 else None


def _joined(prompt: Array | None, answer: Array | None, p: int, g: int) -> Array | None:
    if prompt is None and answer is None:
        return None
    parts = [np.full(n, -1) if ids is None else ids for ids, n in ((prompt, p), (answer, g))]
    return np.concatenate(parts)


def numbers_of(payload: Any, what: str) -> tuple[Array, int | None]:
    """The array of a payload that says its own shape, and where it says that it starts."""
    if isinstance(payload, dict):
        start = payload.get("start")
        found = shaped(str(payload.get("data", "")), str(payload.get("dtype", "uint8")), payload.get("shape"), what)
        return found, start if isinstance(start, int) and not isinstance(start, bool) else None
    return array_of(payload, what), None
