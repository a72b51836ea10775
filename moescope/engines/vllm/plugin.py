"""The entry point `vllm.general_plugins`: off unless MOESCOPE_VLLM_STORE names a store.

vLLM calls `register` in each of its processes, often more than once. Nothing of moescope is loaded before a model is.
"""

import functools
import logging
import os
from typing import Any

STORE, NAME = "MOESCOPE_VLLM_STORE", "MOESCOPE_VLLM_NAME"


def register() -> None:
    """Have every worker of this process recorded, where the environment asks for it."""
    if not os.environ.get(STORE):
        return
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    inner = WorkerWrapperBase.init_device
    if getattr(inner, "by_moescope", False):
        return

    @functools.wraps(inner)
    def init_device(self: Any) -> Any:
        found = inner(self)
        _watch(self.worker)
        return found

    init_device.by_moescope = True  # type: ignore[attr-defined]
    WorkerWrapperBase.init_device = init_device


def _watch(worker: Any) -> None:
    """Bind a worker as soon as its model is loaded, which is before graphs are captured."""
    runner = getattr(worker, "model_runner", None)
    load_model = getattr(runner, "load_model", None)
    if runner is None or load_model is None:
        _say("this worker has no model runner of a kind that it knows")
        return

    if str(getattr(runner, "device", "")) == "cpu":  # there routers are compiled with the model, and a graph that was kept
        os.environ["VLLM_DISABLE_COMPILE_CACHE"] = "1"  # without the recorder would be run; read from now on

    @functools.wraps(load_model)
    def loaded(*args: Any, **kwargs: Any) -> Any:
        found = load_model(*args, **kwargs)
        try:
            from .attach import attached

            attached(worker, os.environ[STORE], os.environ.get(NAME))
        except Exception as error:  # a package that is missing, above all: no server fails to start for it
            _say(f"{type(error).__name__}: {error}")
        return found

    runner.load_model = loaded


def _say(why: str) -> None:
    logging.getLogger("vllm.moescope").error("moescope does not record this server (%s); it serves as ever", why)
