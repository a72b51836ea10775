"""What two processes of torchrun do together: `torchrun --nproc-per-node 2 two_ranks.py FOLDER`, which holds saved models.

Leaves FOLDER/said-RANK.json: {case: what was said}; the stores are traced by both and kept by the first.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from small import ids
from torch import distributed
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.distributed import DistributedConfig

import moescope
from moescope.cli import main
from moescope.errors import MoescopeError

SPREAD: dict[str, tuple[str, dict[str, Any]]] = {
    "tensor": ("mixtral", {"tp_plan": "auto"}),
    "expert": ("qwen3_moe", {"tp_plan": "auto", "ep_size": 2}),
    "expert, exchanged": ("qwen3_moe", {"tp_plan": "auto", "ep_size": 2, "ep_implementation": "all_to_all"}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {"own tokens": ("qwen3_moe", {"fsdp_size": 2})}


def loaded(folder: Path, case: tuple[str, dict[str, Any]]) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / case[0], distributed_config=DistributedConfig(**case[1])).eval()


@torch.no_grad()
def calls(model: Any, seed: int = 0) -> None:
    """A prefill and a generation."""
    given = ids(2, 7, seed)
    model(input_ids=given, attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]), use_cache=False)
    model.generate(input_ids=given, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)


def said(ask: Callable[[], object]) -> str:
    try:
        return f"run {ask()}"
    except MoescopeError as error:
        return f"{type(error).__name__}: {error}"


def traced(model: Any, store: Path, seed: int = 0, **options: Any) -> int | None:
    with moescope.Tracer(model, store, **options) as tracer:
        calls(model, seed)
    return tracer.run


def program(folder: Path) -> dict[str, str]:
    """Every case, in the same order in both processes."""
    found, model = {}, None
    for name, case in (SPREAD | REFUSED).items():
        model = loaded(folder, case)
        found[name] = said(lambda: traced(model, folder / f"{name}.duckdb"))  # noqa: B023
    rank, model = distributed.get_rank(), loaded(folder, SPREAD["tensor"])
    found["other tokens"] = said(lambda: traced(model, folder / "other.duckdb", seed=rank))
    found["other options"] = said(lambda: traced(model, folder / "other.duckdb", weights=rank == 0))
    texts, reader = loaded(folder, ("texts", {"tp_plan": "auto"})), AutoTokenizer.from_pretrained(folder / "texts")
    found["other texts"] = said(lambda: moescope.trace(texts, [f"Text {rank}."], folder / "other.duckdb", tokenizer=reader))
    for name, more in (("other command", ["--limit", str(2 + rank)]), ("command", []), ("command, resumed", ["--resume"])):
        found[name] = command(folder, "--expert-parallel", *more)
    return found


def command(folder: Path, *more: str) -> str:
    """Exit code of `moescope trace`, and what it said."""
    asked = ["trace", str(folder / "texts"), "--data", str(folder / "texts.txt"), "--store", str(folder / "command.duckdb")]
    with redirect_stderr(StringIO()) as heard:
        try:
            main([*asked, "--generate", "2", "--quiet", *more])
        except SystemExit as end:
            return f"exit {end.code or 0}: {heard.getvalue().strip()}"
    raise AssertionError("the command never ends otherwise")


if __name__ == "__main__":
    torch.set_num_threads(1)
    home = Path(sys.argv[1])
    (home / f"said-{os.environ['RANK']}.json").write_text(json.dumps(program(home)))
