"""Whether a checkpoint holds the weights that a model has: what is not there would be random numbers, traced as if it had been.

Transformers says what it did not find, after what a class leaves out on purpose and what is tied. Beside that nothing is held
against a checkpoint that holds more than the part which is loaded: the head above a base model, and the layers that predict
further tokens (`num_nextn_predict_layers`) above a model that does not run them; those are said.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..words import listed

_CURE = "; get the whole checkpoint, or the class it was saved from (architectures in config.json), or say --allow-missing"


def readable(folder: Path) -> None:
    """ModelError where a file of weights that a folder's index names is missing, or one in safetensors is cut off."""
    from safetensors import SafetensorError, safe_open

    named = {name for index in folder.glob("*.safetensors.index.json") for name in _files(index)}
    absent = sorted(name for name in named if not (folder / name).exists())
    if absent:
        raise ModelError(
            f"{len(absent)} of the {len(named)} files of weights of {folder} are missing ({listed(absent)}); fetch them again"
        )
    for path in sorted(folder.glob("*.safetensors")):
        try:
            safe_open(path, "pt").__exit__(None, None, None)
        except SafetensorError as error:
            raise ModelError(f"{path} is cut off or damaged ({error}); fetch it again") from error


def _files(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is no index of weights ({type(error).__name__}: {error}); fetch it again") from error


def complete(name: str, model: nn.Module, info: Mapping[str, Any], allow: bool) -> list[str]:
    """Sentences on what the checkpoint did not give or the model did not take. ModelError if that matters, unless `allow`."""
    beside, unexpected = _parted(model, sorted(info["unexpected_keys"]))
    shapes = [f"{key}: {tuple(there)}, not {tuple(here)}" for key, there, here in sorted(info["mismatched_keys"])]
    kind = type(model).__name__
    found = [
        (sorted(info["missing_keys"]), f"lacks {{}} of the weights of {kind}", ", which are random numbers"),
        (shapes, f"holds {{}} weights of another shape than {kind} has", ", which are random numbers"),
        (unexpected, f"holds {{}} weights that {kind} does not have", ", which are left out"),
    ]
    said = [f"{text.format(len(keys))} ({listed(keys)}){then}" for keys, text, then in found if keys]
    if said and not allow:
        raise ModelError(f"{name} " + " and ".join(said).replace("which are random", "which would be random") + _CURE)
    extra = [f"holds {len(beside)} weights that {kind} does not run ({listed(beside)})"] if beside else []
    return [f"the checkpoint {text}" for text in said + extra]


def _parted(model: nn.Module, keys: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of weights that a model does not know: those of a part that it leaves to others, and the rest."""
    prefix = getattr(model, "base_model_prefix", "") or "model"
    base = getattr(model, "base_model", None) is model
    own = {key.partition(".")[0] for key in model.state_dict()} | {prefix}
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers, further = (getattr(config, name, None) or 0 for name in ("num_hidden_layers", "num_nextn_predict_layers"))
    heads: list[str] = []
    rest: list[str] = []
    for key in keys:
        number = re.search(r"(?:^|\.)layers\.(\d+)\.", key)
        predicts = number is not None and layers <= int(number[1]) < layers + further
        (heads if predicts or (base and key.partition(".")[0] not in own) else rest).append(key)
    return heads, rest


@contextmanager
def reported(name: str, method: str | None = None) -> Iterator[None]:
    """Keep Transformers' table of such weights off the screen; ModelError where weights could not be put together.

    `method`: by which they are quantized, if they are.
    """
    logger, disabled = logging.getLogger("transformers.modeling_utils"), logging.root.manager.disable
    table, level = _Table(silent=bool(disabled)), logger.level
    logger.addFilter(table)
    logger.setLevel(logging.WARNING)  # the table is read, also where nothing is to be said
    logging.disable(logging.NOTSET)
    try:
        yield
    except RuntimeError as error:
        if not table.broken:
            raise
        cure = "some are missing or of another shape: get the whole checkpoint"
        if method is not None:
            cure = f"they are quantized by {method} in a form that this Transformers does not read for this model: get another"
        raise ModelError(
            f"{name} cannot be loaded: the weights it holds do not make up {listed(table.broken)} ({table.why}); {cure}"
        ) from error
    finally:
        logging.disable(disabled)
        logger.setLevel(level)
        logger.removeFilter(table)


class _Table(logging.Filter):
    """Stops the table, and reads in it which weights could not be converted, and why."""

    why = "no reason given"

    def __init__(self, silent: bool) -> None:
        super().__init__()
        self.broken, self.silent = list[str](), silent

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "LOAD REPORT" not in text:
            return not self.silent
        self.broken += re.findall(r"^(\S.*?) +\| +\S*CONVERSION", text, re.M)
        if reason := re.search(r"^\w*(?:Error|Exception): (.+)$", text, re.M):
            self.why = reason[1].strip().rstrip(".")
        return False


@contextmanager
def steady(allow: bool) -> Iterator[None]:
    """Where weights may be missing: the same random numbers in their place each time, so that a run can be gone on with."""
    if not allow:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
