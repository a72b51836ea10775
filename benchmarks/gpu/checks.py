"""Is what is stored what ran? Eight families in bf16, prefill and decode, against hooks of the tests; and do hooks wait?"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import moescope
from benchmarks.gpu.here import Here, Row, guarded, oracles
from moescope.models import tiny

FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "olmoe", "llama4_text", "jetmoe", "switch_transformers")
STEPS = 4


def rows(here: Here) -> Iterator[Row]:
    """Two rows for each family."""
    torch.set_grad_enabled(False)
    for family in FAMILIES[:2] if here.few else FAMILIES:
        try:
            model, inputs, note = specimen(family, here)
        except Exception as error:
            yield Row(f"{family}: built and run", f"{type(error).__name__}: {str(error)[:300]}", good=False)
            continue
        what = f"{family}, bf16: proved, prefill and {STEPS} decode steps recounted{note}"
        yield guarded(what, partial(recounted, model, inputs))
        yield guarded(f"{family}, bf16: no hook waits for the device", partial(unwaited, model, inputs, here))


def specimen(family: str, here: Here) -> tuple[nn.Module, dict[str, torch.Tensor], str]:
    """The tiny model on the device, its inputs, and what had to be changed so that Transformers runs it there."""
    built = tiny.build(family, dtype=torch.bfloat16)
    model: Any = built.model.to(here.device)
    inputs = {name: value.to(here.device) for name, value in built.inputs.items()}
    try:
        model(**inputs)
    except Exception as error:
        if here.cuda and "CUDA error" in str(error):
            raise
        model.set_experts_implementation("eager")
        model(**inputs)
        return model, inputs, f" (experts eager: {type(error).__name__} with the default)"
    return model, inputs, ""


def recounted(model: Any, inputs: dict[str, torch.Tensor]) -> str:
    """Trace a prefill and a generation, and compare every row with what independent hooks saw."""
    oracles()
    from common_rows import differences, of_store
    from recount import listening

    asked: dict[str, Any] = {name: value for name, value in inputs.items() if not name.startswith("decoder")}
    asked |= {"decoder_start_token_id": 0} if model.config.is_encoder_decoder else {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.duckdb"
        with moescope.Tracer(model, store) as tracer, listening(model) as heard:
            model(**inputs)
            model.generate(**asked, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)
        with moescope.open(store) as opened:
            stored = of_store(opened)
            count = opened.rows("select count(*) from decisions")[0][0]
    heard = [one for one in heard if one.counted]
    if len(heard) != len(stored):
        raise AssertionError(f"{len(heard)} forwards ran and {len(stored)} are stored")
    wrong = [said for one, there in zip(heard, stored) for said in differences(one, there)]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {sum(map(len, stored))} routers' forwards differ: {wrong[0]}")
    return f"{count:,} decisions equal; proof's largest error {max(p.error for p in tracer.proof):.1e}"


def unwaited(model: Any, inputs: dict[str, torch.Tensor], here: Here) -> str:
    """Traced forwards under PyTorch's own detector: refused outright where the plain forward passes it, else counted."""
    asked = {name: value for name, value in inputs.items() if name != "attention_mask"}  # a mask is looked at by Transformers
    plain = _waits(model, asked, here)
    with tempfile.TemporaryDirectory() as folder, moescope.Tracer(model, Path(folder) / "run.duckdb"):
        model(**asked)  # what is made once
        traced = _waits(model, asked, here)
        ours = [place for place in traced if "/moescope/" in place]
        if ours or len(traced) > len(plain):
            raise AssertionError(f"{len(plain)} waits plain, {len(traced)} traced, ours: {ours[:3]}")
        if not plain:
            with detecting("error", here):
                for _ in range(3):
                    model(**asked)
    word = "none under 'error'" if not plain else f"the model itself waits {len(plain)} times a forward, traced {len(traced)}"
    return word if here.cuda else "no device to wait for: ran only"


def _waits(model: Any, inputs: dict[str, torch.Tensor], here: Here) -> list[str]:
    """Where the host waited for the device in one forward."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with detecting("warn", here):
            model(**inputs)
    return [f"{w.filename}:{w.lineno}" for w in said if "synchroniz" in str(w.message)]


@contextmanager
def detecting(mode: str, here: Here) -> Iterator[None]:
    """`torch.cuda.set_sync_debug_mode`, where there is CUDA."""
    if not here.cuda:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
