"""A GGUF file as a loaded model."""

from pathlib import Path

import torch

from ...errors import InputError, ModelError
from ..loaded import How, Loaded
from .engine import Engine
from .header import read_header
from .learning import learn
from .library import library
from .model import GGUFModel
from .words import GGUFTokenizer

_DTYPES = ("auto", torch.float32, torch.float16)


def load_gguf(name: str, path: Path, how: How) -> Loaded:
    """Its header is read first, then llama.cpp loads it, then its routers are proved on a few tokens.

    `how.dtype`: of keys and values (auto: llama.cpp's own, float16). InputError for what only models of Transformers take,
    ModelError, NotMoEError, ProofFailed where it is no whole GGUF, dense, or does something else than its logits say.
    """
    if how.dtype not in _DTYPES:
        raise InputError(f"keys and values of a GGUF are kept in float32 or float16, not in {how.dtype}; leave --dtype out")
    header = read_header(path)
    library()
    gpu = how.device.type != "cpu" and bool(library().api.llama_supports_gpu_offload())
    notes = (
        [] if gpu or how.device.type == "cpu" else [f"{name} ran on the CPU: llama-cpp-python is built without a GPU's support"]
    )
    engine = Engine(path, gpu, how.dtype == torch.float32, torch.get_num_threads)
    if engine.recurrent:
        raise ModelError(
            f"{path} ({header.architecture}) keeps states beside attention, whose rows llama.cpp runs in an order of its own: "
            "such models are not read"
        )
    model = GGUFModel(engine, header, learn(engine, header)).eval()
    return Loaded(name, model, GGUFTokenizer.of(engine), notes=notes, no_tokenizer="is a GGUF without a vocabulary")
