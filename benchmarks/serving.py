"""python -m benchmarks.serving [--python FOLDER]: what the recorder inside vLLM costs, and whether it is right.

vLLM's build for CPUs in an installation of its own (`make test-vllm` makes build/vllm), a small random OLMoE (8 layers of 32
experts, top-8), the same prompts again and again, in three engines that live at the same time and answer by turns: without the
recorder, with it, and without it again. CPU seconds of a round (of all threads, also the recorder's, until the engine's next
round) and its time on the clock, each to the round of the first engine beside it; the third is the control. One thread
computes, since those that wait for each other spend CPU time too. Every decision is compared with Transformers' own. Writes
benchmarks/serving.json, from which `make docs` fills docs/engines.md.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("serving.json")
PROMPTS, PROMPT, ANSWER = 8, 64, 24
WARM = 5  # rounds that are not counted: the recorder's first shards load what they need
ENGINES = ("plain", "recorded", "control")
sys.path += [str(ROOT / "tests" / room) for room in ("builders/models", "oracles", "programs")]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'programs'}",
}  # fmt: skip


def planned(folder: Path, model: Path, rounds: int) -> list[Path]:
    """Plans of the engines, the second with the recorder."""
    import random

    rng, files = random.Random(0), []
    prompts = [[rng.randrange(3, 300) for _ in range(PROMPT)] for _ in range(PROMPTS)]
    options = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_model_len": 256,
               "max_num_seqs": PROMPTS, "enable_prefix_caching": False}  # fmt: skip
    for name in ENGINES:
        store = str(folder / f"{name}.duckdb") if name == "recorded" else None
        plan = {"model": str(model), "store": store, "engine": options, "rounds": [prompts] * (rounds + WARM), "turns": True,
                "params": [{"temperature": 0, "max_tokens": ANSWER, "ignore_eos": True}],
                "out": str(folder / f"{name}.json")}  # fmt: skip
        files.append(folder / f"{name}.plan")
        files[-1].write_text(json.dumps(plan))
    return files


def by_turns(python: str, files: list[Path], rounds: int) -> None:
    """All engines, a round of each after the other."""
    from vllm_offline import TURN

    command, environment = [python, "-m", "vllm_offline"], {**os.environ, **ENVIRONMENT}
    running = []
    for file in files:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        running.append(subprocess.Popen([*command, str(file)], env=environment, **pipes))
        _await(running[-1], TURN)
    for _ in range(rounds + WARM):
        for engine in running:
            _next(engine)
            _await(engine, TURN)
    for engine in running:
        _next(engine)
        if engine.wait(600):
            raise SystemExit(f"an engine failed ({engine.returncode})")


def _next(engine: Any) -> None:
    engine.stdin.write("\n")
    engine.stdin.flush()


def _await(engine: Any, line: str) -> None:
    """Read what it prints until it says that."""
    while (said := engine.stdout.readline()).strip() != line:
        if not said:
            raise SystemExit("an engine ended early")


def measured(python: str, rounds: int) -> dict[str, Any]:
    """Everything."""
    import served
    import served_models

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = served_models.saved("wide", folder / "model")
        files = planned(folder, model, rounds)
        by_turns(python, files, rounds)
        told = {file.stem: json.loads(file.with_suffix(".json").read_text()) for file in files}
        found = served.agreement(folder / "recorded.duckdb", model, folder)
    plain, recorded, control = (told[name] for name in ENGINES)
    return {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": os.getloadavg()[0], "versions": _versions(python), "decisions": found.decisions, "equal": found.equal,
        "weights": found.weights, "rounds": rounds, "tokens": PROMPTS * (PROMPT + ANSWER),
        "seconds": statistics.median(plain["cpu"][WARM:]),
        "cost": _ratios(recorded["cpu"], plain["cpu"]), "control": _ratios(control["cpu"], plain["cpu"]),
        "slower": _ratios(recorded["seconds"], plain["seconds"]),
        "slower_control": _ratios(control["seconds"], plain["seconds"]),
    }  # fmt: skip


def _ratios(some: list[float], others: list[float]) -> list[float]:
    """[median, lower quartile, upper quartile] of rounds to those beside them, less those that warm up."""
    each = [one / other for one, other in zip(some[WARM:], others[WARM:])]
    low, middle, high = statistics.quantiles(each, n=4)
    return [middle, low, high]


def _versions(python: str) -> dict[str, str]:
    names = ("vllm-cpu", "torch", "transformers")
    code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
    told = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(names, told))


def main() -> None:
    """Measure, keep, and say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=ROOT / "build" / "vllm", help="a virtual environment with vLLM")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    found = measured(str(asked.python / "bin" / "python"), asked.rounds)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
