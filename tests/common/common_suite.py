"""Transformers' common tests over tiny routed families, each of their models under a Tracer from its first forward on."""

import inspect
import re
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common_rows import Rows, differences, of_part
from common_sdist import common
from recount import Heard, listening
from torch import nn
from transformers import PreTrainedModel, set_seed

import moescope
from moescope.contracts import find
from moescope.errors import NotMoEError
from moescope.models.tiny.inputs import inputs_for
from moescope.models.tiny.model_types import config_class, model_class
from moescope.models.tiny.shrink import tiny_config
from moescope.models.tiny.special import SPECIAL, Special
from moescope.store.write.unfinished_run import UnfinishedRun


class Tester:
    """What the mixin asks of a family: a tiny configuration and inputs; every size is the configuration's own."""

    is_training = True
    batch_size, seq_length = 2, 12

    def __init__(self, family: str) -> None:
        self.family = family
        self.config = self.get_config()

    def get_config(self) -> Any:
        """A new one at every call."""
        return tiny_config(config_class(self.family), **SPECIAL.get(self.family, Special()).fields)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """What every common test begins with."""
        config = self.get_config()
        with torch.device("meta"):
            model = model_class(self.family)(config)
        return config, inputs_for(model, 0)

    def __getattr__(self, name: str) -> Any:
        if name == "config":
            raise AttributeError(name)
        return getattr(self.config, name)


@dataclass
class Outcome:
    """How one common test ended."""

    word: str = "passed"  # passed | skipped | failed
    why: str = ""
    models: int = 0  # that ran under a Tracer


_MORE = r"_sdpa_kernels$|_(fp16|bf16)_pad_\w+_no_attn_mask$"


def tests() -> list[str]:
    """Names of the common tests that run a model: in their source, or made of parameters (whose source is elsewhere).

    Those that differ from another only by the kernels of a GPU, or are the third and fourth of a kind, are left out.
    """
    mixin = common().ModelTesterMixin
    names = [name for name in dir(mixin) if name.startswith("test_") and callable(getattr(mixin, name))]
    return [name for name in names if _runs(getattr(mixin, name)) and not re.search(_MORE, name)]


def _runs(test: Any) -> bool:
    test = inspect.unwrap(test)
    made = inspect.getsourcefile(test) != common().__file__
    return made or bool(re.search(r"(model\w*|fwd)\(\s*(\*\*|self\._prepare)|self\.check_", inspect.getsource(test)))


def outcome(family: str, test: str, folder: Path | None = None) -> Outcome:
    """Run one common test of a family, traced into `folder` if there is one."""
    set_seed(0)
    result = unittest.TestResult()
    told = Outcome()
    if folder is None:
        _case(family, test).run(result)
    else:
        try:
            with everything_traced(folder, told):
                _case(family, test).run(result)
        except Exception as error:
            result.errors.append((_case(family, test), f"at the end of its Tracer: {type(error).__name__}: {error}"))
    bad = result.failures + result.errors
    told.word = "failed" if bad else "skipped" if result.skipped else "passed"
    told.why = "".join(why for _, why in [*bad, *result.skipped])
    return told


def _case(family: str, test: str) -> unittest.TestCase:
    suite = common()
    kinds = (suite.ModelTesterMixin, suite.GenerationTesterMixin, unittest.TestCase)
    own: dict[str, Any] = {"all_model_classes": (model_class(family),), "model_tester": Tester(family)}
    own |= {"is_encoder_decoder": own["model_tester"].config.is_encoder_decoder}
    return type(f"{family}ModelTest", kinds, own)(test)


@contextmanager
def everything_traced(folder: Path, told: Outcome) -> Iterator[None]:
    """Every routed model of Transformers is under a Tracer of its own, from its first forward to the end of the block.

    The rows of the first model are held against what hooks heard. Runs end as shards: joining them to a store file, which
    takes longer than all else here, is for other tests.
    """
    plain, tracers, seen, heard = nn.Module.__call__, ExitStack(), _Seen(), list[Heard]()
    written: dict[str, list[Rows]] = {}

    def keep(store: Path, part: UnfinishedRun, *_: Any) -> int:
        if store.stem == "1":
            written[store.stem] = of_part(part)
        return 0

    def call(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal heard
        seen.depth += 1
        try:
            if seen.depth == 1 and seen.first(model):
                told.models += 1
                tracers.enter_context(moescope.Tracer(model, folder / f"{told.models}.duckdb"))
                heard = tracers.enter_context(listening(model)) if told.models == 1 else heard
            return plain(model, *args, **kwargs)
        finally:
            seen.depth -= 1

    with (
        patch.object(PreTrainedModel, "__call__", call),
        patch("moescope.store.write.writer.ensure_store"),
        patch("moescope.store.write.writer.join_run", keep),
        tracers,
    ):
        yield
    for rows in written.values():
        wrong = [what for one, stored in zip(heard, rows) for what in differences(one, stored)]
        assert not wrong, f"rows are not those that were heard: {wrong}"
        assert len(rows) == len(heard), f"{len(rows)} forwards are stored, {len(heard)} were heard"
    for model in seen.models:
        assert not left(model), f"hooks of moescope are left behind at {left(model)}"


@dataclass
class _Seen:
    depth: int = 0
    models: list[nn.Module] = field(default_factory=list)

    def first(self, model: nn.Module) -> bool:
        """Whether a routed model is met for the first time."""
        if any(model is known for known in self.models):
            return False
        try:
            find(model)
        except NotMoEError:
            return False
        self.models.append(model)
        return True


def left(model: nn.Module) -> list[str]:
    """Modules that still have a hook of moescope's."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = ((name, hook) for name, m in model.named_modules() for kind in kinds for hook in getattr(m, kind).values())
    return [name for name, hook in hooks if str(getattr(hook, "__module__", "")).startswith("moescope")]
