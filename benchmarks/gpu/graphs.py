"""What runs past hooks, compiled code and CUDA graphs: recorded right, or refused in a sentence. Never an empty record."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import moescope
from benchmarks.gpu.checks import recounted
from benchmarks.gpu.here import Here, Row, guarded
from moescope.errors import MoescopeError
from moescope.models import tiny

REPLAYS = 3


def rows(here: Here) -> Iterator[Row]:
    """A row for each way to compile."""
    torch.set_grad_enabled(False)
    cases: dict[str, Callable[[Here], str]] = {
        "torch.compile(model), compiled before the trace": handed,
        "torch.compile(model), called while the model is traced": called_inside,
        "one layer's attention compiled, the rest as it is": beside,
        "generate with a static cache": static,
        "forward captured as a CUDA graph inside the trace": captured,
    }
    for what, check in cases.items():
        yield guarded(what, partial(check, here))


def _mixtral(here: Here) -> tuple[Any, dict[str, torch.Tensor]]:
    built = tiny.build("mixtral", dtype=torch.bfloat16)
    return built.model.to(here.device), {name: value.to(here.device) for name, value in built.inputs.items()}


def _compiled(module: Any, small: bool = True) -> Any:
    """A whole model without a C++ compiler: what it computes is not asked. A part with CUDA graphs where there is CUDA."""
    return torch.compile(module, backend="aot_eager") if small else torch.compile(module, mode="reduce-overhead")


def handed(here: Here) -> str:
    """What torch.compile returned, and has run, is refused at attach."""
    model, inputs = _mixtral(here)
    model = _compiled(model)
    model(**inputs)
    return _refusal(lambda store: moescope.Tracer(model, store).__enter__())


def called_inside(here: Here) -> str:
    """Its graphs would run past the hooks of the model inside."""
    model, inputs = _mixtral(here)
    compiled = _compiled(model)
    compiled(**inputs)

    def ask(store: Path) -> None:
        with moescope.Tracer(model, store):
            compiled(**inputs)

    return _refusal(ask)


def beside(here: Here) -> str:
    """Compiled code that hides no hook changes nothing."""
    model, inputs = _mixtral(here)
    model.model.layers[0].self_attn = _compiled(model.model.layers[0].self_attn, not here.cuda)
    for _ in range(3):
        model(**inputs)
    return recounted(model, inputs)


def static(here: Here) -> str:
    """Transformers compiles what it generates with on a GPU; traced, it runs as it is."""
    model, inputs = _mixtral(here)
    model.generation_config.cache_implementation = "static"
    return recounted(model, inputs)


def captured(here: Here) -> str:
    """Replays run no hook: what is stored must be refused, or be all of them."""
    if not here.cuda:
        return "no CUDA: not asked"
    model, inputs = _mixtral(here)
    ids = inputs["input_ids"].clamp(min=3)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        model(input_ids=ids, use_cache=False)
    torch.cuda.current_stream().wait_stream(side)
    _replay(lambda: model(input_ids=ids, use_cache=False))  # that the model can be captured at all
    return _refusal(lambda store: _captured_inside(model, ids, store))


def _captured_inside(model: Any, ids: torch.Tensor, store: Path) -> None:
    with moescope.Tracer(model, store):
        _replay(lambda: model(input_ids=ids, use_cache=False))


def _replay(forward: Callable[[], object]) -> None:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize()


def _refusal(ask: Callable[[Path], object]) -> str:
    """The sentence; AssertionError where nothing is refused, whatever else is raised as it is."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        try:
            ask(store)
        except MoescopeError as said:
            return f"refused: {' '.join(str(said).split())[:120]} …"
        with moescope.open(store) as opened:
            stored = opened.rows("select count(*) from forwards")[0][0]
    raise AssertionError(f"nothing was refused, and {stored} forwards are stored")
