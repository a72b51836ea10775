"""What vLLM's model runners say of a step: V1 keeps its batch in `input_batch`, V2 in the state between forward and
sampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...foreign import one_line
from ...importers._listen.asking import labels_of
from ..step import Begun, Request

LABEL = "moescope_label"  # in extra_args, or vllm_xargs of a request to the server: kind=value, kind=value


@dataclass
class Batch:
    """A forward that has just run: requests in the order of their rows, and tensors on the device."""

    requests: list[str]
    counts: list[int]
    drafts: list[int]
    input_ids: Any
    positions: Any


def begun(output: Any) -> Begun:
    """What the scheduler says before a step."""
    return Begun(sorted(output.finished_req_ids), [_request(one) for one in output.scheduled_new_reqs])


def _request(new: Any) -> Request:
    sampling = new.sampling_params
    own = getattr(sampling, "extra_args", None) or {}
    label = own.get(LABEL)
    length = new.prompt_len
    return Request(
        new.req_id, new.prompt_token_ids, length, labels_of(one_line(label)) if isinstance(label, str) else {}, _stops(sampling)
    )


def _stops(sampling: Any) -> frozenset[int]:
    """Tokens that end an answer."""
    found = set(getattr(sampling, "stop_token_ids", None) or ())
    eos = getattr(sampling, "eos_token_id", None)
    if eos is not None and not getattr(sampling, "ignore_eos", False):
        found.add(eos)
    return frozenset(found)


def batch_of(runner: Any, output: Any) -> Batch:
    """The batch of the forward that has just run."""
    guessed = output.scheduled_spec_decode_tokens
    own = getattr(getattr(runner, "execute_model_state", None), "input_batch", None)
    if own is not None:  # V2
        names = list(own.req_ids)
        ends = own.query_start_loc_np[: len(names) + 1]
        counts = [int(n) for n in ends[1:] - ends[:-1]]
        ids, positions = own.input_ids, own.positions
    else:
        names = list(runner.input_batch.req_ids)
        counts = [int(output.num_scheduled_tokens[name]) for name in names]
        ids, positions = _on_device(runner.input_ids), _on_device(runner.positions)
    rows = sum(counts)
    return Batch(names, counts, [len(guessed.get(name, ())) for name in names], ids[:rows], positions[:rows])


def _on_device(buffer: Any) -> Any:
    return getattr(buffer, "gpu", buffer)


def taken(runner: Any, output: Any) -> tuple[list[str], Sequence[Sequence[int]] | Any] | None:
    """(requests, tokens that were sampled for each), as lists or as a tensor (requests, n); None where none are known."""
    names, tokens = getattr(output, "req_ids", None), getattr(output, "sampled_token_ids", None)
    if names and tokens:
        return list(names), [list(map(int, one)) for one in tokens]
    sampled = getattr(getattr(output, "sampler_output", None), "sampled_token_ids", None)  # V2
    inner = getattr(output, "model_runner_output", None)
    if sampled is not None and inner is not None:
        return list(inner.req_ids), sampled
    batch = getattr(runner, "input_batch", None)
    pending = getattr(batch, "prev_sampled_token_ids", None)  # V1 that does not wait for its tokens
    return None if batch is None or pending is None else (list(batch.req_ids), pending)
