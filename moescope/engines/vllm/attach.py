"""Bind a worker of vLLM: its routers write into static buffers, its runner's steps go to a recorder.

Whatever fails here is said once and ends the recording, never a request.
"""

import functools
import logging
import sys
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import torch

from ...errors import MoescopeError
from ...foreign import said
from ...importers._core.words import Tokenizer
from ...store.write.change import check_target
from ..buffers import Buffers
from ..recomputed import Recomputation
from ..recorder import Engine, Recorder
from ..step import Sampled, Step
from .facts import Routed, model_of, refused, routers_of, rule_of
from .runners import batch_of, begun, taken

_log = logging.getLogger("vllm.moescope")
UNTRIED = (
    "CUDA graphs, Triton kernels and tensor parallelism were never tried with this recorder: compare some requests with a trace"
)


class Watch:
    """One worker that is recorded, until something fails."""

    def __init__(self, buffers: Buffers, recorder: Recorder, runner: Any) -> None:
        self.buffers, self.recorder, self.runner = buffers, recorder, runner
        self.on = True

    def before(self, output: Any) -> None:
        """A step is scheduled."""
        self.recorder.begun(begun(output))
        self.buffers.poison(int(output.total_num_scheduled_tokens))

    def after(self, output: Any) -> None:
        """Its forward has run."""
        if not output.total_num_scheduled_tokens:
            return
        batch = batch_of(self.runner, output)
        rows = sum(batch.counts)
        beside = {"input_ids": batch.input_ids, "positions": batch.positions}
        if self.recorder.engine.again.due(rows):
            beside["logits"] = self.buffers.logits[:, :rows]
        snapshot = self.buffers.snapshot(rows, beside)
        self.recorder.step(Step(batch.requests, batch.counts, batch.drafts, snapshot))

    def sampled(self, result: Any) -> None:
        """And its tokens were sampled."""
        found = taken(self.runner, result)
        if found is not None:
            names, tokens = found
            if isinstance(tokens, torch.Tensor):
                tokens = self.buffers.snapshot(0, {"tokens": tokens})
            self.recorder.sampled(Sampled(names, tokens))

    def guarded(self, step: Callable[[Any], None], about: Any) -> None:
        """One of these, unless the recording has ended; it ends here where that fails."""
        if self.on:
            try:
                step(about)
            except Exception as error:
                self.on = False
                _log.error("moescope stops recording (%s); requests go on", said(error))

    def close(self) -> None:
        """Store what waits, and join the run; asked again, nothing."""
        if not self.recorder.closed:
            self.on = False
            self.recorder.close()
            runs = ", ".join(map(str, self.recorder.runs))
            what = f"run {runs} of {self.recorder.store}" if runs else f"no run in {self.recorder.store}"
            _log.info("moescope: %s: %s requests kept, %s not", what, self.recorder.kept, self.recorder.lost)


def attached(worker: Any, store: str, name: str | None = None) -> Watch | None:
    """Record a worker whose model is loaded; None, and said, where that cannot be, or where another rank does."""
    try:
        if not _first_rank():
            return None
        if (why := refused(worker.vllm_config)) is not None:
            raise MoescopeError(why)
        watch = _watch(worker, Path(store), name)
    except Exception as error:
        why = str(error) if isinstance(error, MoescopeError) else said(error)
        _log.error("moescope does not record this server (%s); it serves as ever", why)
        return None
    _wrap(worker, watch)
    return watch


def _first_rank() -> bool:
    from vllm.distributed.parallel_state import get_tp_group

    return bool(get_tp_group().is_first_rank)


def _watch(worker: Any, store: Path, name: str | None) -> Watch:
    check_target(store)
    runner, config = worker.model_runner, worker.vllm_config
    routers = routers_of(runner.get_model())
    model = model_of(config, routers)
    device = torch.device(runner.device)
    buffers = Buffers(len(routers), _longest(runner, config), model.top_k, device, model.experts)
    for place, one in enumerate(routers):
        listen(one, functools.partial(buffers.write, place))
    again = Recomputation([rule_of(one, model.config) for one in routers], _near(config))
    recorder = Recorder(store, _engine(config, model, device, name, again), lambda text: _log.warning("moescope: %s", text))
    _log.info("moescope records %s of %s into %s", model.said, model.name, store)
    return Watch(buffers, recorder, runner)


def listen(routed: Routed, write: Callable[[Any, Any, Any], None]) -> None:
    """Have a router's decision written as it is made: before physical copies of experts take their places."""
    inner, scale = routed.router._compute_routing, routed.scale

    @functools.wraps(inner)
    def compute(hidden_states: Any, router_logits: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        weights, ids = inner(hidden_states, router_logits, *args, **kwargs)
        write(weights if scale == 1.0 else weights * scale, ids, router_logits)
        return weights, ids

    routed.router._compute_routing = compute


def _longest(runner: Any, config: Any) -> int:
    """Rows of the longest batch, padding of graphs included."""
    own = getattr(runner, "max_num_tokens", 0)
    sizes = getattr(config.compilation_config, "cudagraph_capture_sizes", None) or [0]
    return max(int(own or 0), int(config.scheduler_config.max_num_batched_tokens), *map(int, sizes))


def _near(config: Any) -> float:
    """How exact the arithmetic of routers is: they may run in the model's own type."""
    kind = config.model_config.dtype
    return 4 * torch.finfo(kind).eps if isinstance(kind, torch.dtype) else 0.0


def _engine(config: Any, model: Any, device: torch.device, name: str | None, again: Recomputation) -> Engine:
    own, version = config.model_config, str(getattr(sys.modules.get("vllm"), "__version__", "unknown"))
    facts = {
        "device": str(device), "dtype": str(own.dtype).removeprefix("torch."), "seed": own.seed,
        "versions": {"vllm": version, "torch": torch.__version__},
    }  # fmt: skip
    warnings = [] if device.type == "cpu" else [UNTRIED]
    return Engine(f"vLLM {version}, live", name or model.name, model, facts, warnings, _tokenizer(own), again)


def _tokenizer(own: Any) -> Tokenizer | None:
    place = None if own.skip_tokenizer_init else str(own.tokenizer)
    try:
        return None if place is None else Tokenizer(place)
    except MoescopeError:
        return None


def _wrap(worker: Any, watch: Watch) -> None:
    runner = watch.runner
    execute, sample, shutdown = runner.execute_model, runner.sample_tokens, worker.shutdown

    @functools.wraps(execute)
    def execute_model(output: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dummy_run"):
            return execute(output, *args, **kwargs)
        watch.guarded(watch.before, output)
        found = execute(output, *args, **kwargs)
        watch.guarded(watch.after, output)
        return found

    @functools.wraps(sample)
    def sample_tokens(*args: Any, **kwargs: Any) -> Any:
        found = sample(*args, **kwargs)
        watch.guarded(watch.sampled, found)
        return found

    @functools.wraps(shutdown)
    def closed(*args: Any, **kwargs: Any) -> Any:
        watch.close()
        return shutdown(*args, **kwargs)

    runner.execute_model, runner.sample_tokens, worker.shutdown = execute_model, sample_tokens, closed
    Finalize(None, watch.close, exitpriority=100)
