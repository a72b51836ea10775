"""How long it takes to trace ten words with a shipped model, beside importing Transformers and loading that model.

    python -m benchmarks.speed.start [--rounds 9]

Each is a process of its own, by turns; CPU seconds of the whole process, medians, and the median of the rounds' ratios.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = "The router looked at the word and chose two experts"
LOADING = """
import transformers
transformers.AutoModelForCausalLM.from_pretrained({folder!r}).eval()
"""


def seconds(command: list[str]) -> float:
    """CPU seconds of a process and what it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the medians and the ratio."""
    from moescope.models.loading import specimens

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds, loading, tracing = parser.parse_args().rounds, [], []
    with tempfile.TemporaryDirectory() as folder:
        (words := Path(folder) / "words.txt").write_text(WORDS + "\n")
        model = str(specimens()["mixtral"])
        for number in range(-1, rounds):  # the first is not counted
            store = str(Path(folder) / f"{number}.duckdb")
            base = seconds([sys.executable, "-c", LOADING.format(folder=model)])
            traced = seconds(
                [sys.executable, "-m", "moescope", "trace", model, "--data", str(words), "--store", store, "--quiet"]
            )
            if number >= 0:
                loading.append(base)
                tracing.append(traced)
                print(f"{base:.2f} {traced:.2f} {traced / base:.3f}", flush=True)
    ratio = statistics.median(t / b for t, b in zip(tracing, loading))
    print(f"loading {statistics.median(loading):.2f} s, tracing {statistics.median(tracing):.2f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
