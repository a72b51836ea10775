"""What reading costs: python -m benchmarks.inputs [--rows 1000000]

Share of padding with and without batches by tokens; memory while rows are streamed, by container and into a trace; tokens a
second of a stream against data that are held. Prints the tables of docs/inputs.md.
"""

import gzip
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pyarrow as pa
import torch
import transformers
from pyarrow import parquet

import moescope
from benchmarks.measure import resident, spent
from moescope.inputs import read, stream
from moescope.models.loading import load
from moescope.tracer.data.batching import all_rows, batches_of
from moescope.tracer.data.drawing import Asked, Drawn

TENTHS = 10
WORDS = ("the", "law", "cat", "expert", "router", "token", "sat", "ran", "said", "of", "in", "under", "many", "few", "red")


def row(number: int) -> dict[str, Any]:
    """A row of 5 to 40 words, the same each time."""
    chance = random.Random(number)
    return {"text": " ".join(chance.choices(WORDS, k=chance.randint(5, 40))), "domain": f"d{number % 7}", "n": number}


def padding(model: Any, **way: Any) -> tuple[int, float]:
    """(batches, share of places that hold padding) of the shipped texts."""
    drawn = Drawn(model, read("text"), Asked(**way))
    tokens = places = batches = 0
    for batch in batches_of(drawn, all_rows(drawn), 0):
        sizes = [len(window) for window in batch.windows]
        tokens, places, batches = tokens + sum(sizes), places + len(sizes) * max(sizes), batches + 1
    return batches, 1 - tokens / places


def write(path: Path, rows: int) -> None:
    """So many rows, in the container that the file's name says."""
    if path.suffix == ".parquet":
        with parquet.ParquetWriter(path, pa.Table.from_pylist([row(0)]).schema) as out:
            for first in range(0, rows, 10_000):
                out.write_table(pa.Table.from_pylist([row(n) for n in range(first, min(rows, first + 10_000))]))
        return
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w") as file:
        if ".csv" in path.suffixes:
            file.write("text,domain,n\n")
        for number in range(rows):
            found = row(number)
            file.write(f"{found['text']},{found['domain']},{number}\n" if ".csv" in path.suffixes else json.dumps(found) + "\n")


def watched(examples: Iterable[Any], rows: int) -> Iterator[Any]:
    """The same; the memory of this process is printed after each tenth."""
    for number, example in enumerate(examples, 1):
        yield example
        if number % (rows // TENTHS) == 0:
            print(resident(), flush=True)


def tiny() -> Any:
    """One layer, two experts, 97 ids."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes |= {"vocab_size": 97, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}
    torch.manual_seed(0)
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes)).eval()


def ids(number: int) -> dict[str, Any]:
    """A row of 5 to 40 ids, the same each time."""
    chance = random.Random(number)
    return {"input_ids": chance.choices(range(3, 97), k=chance.randint(5, 40)), "domain": f"d{number % 7}"}


def memory_of(what: str, rows: int) -> None:
    """In a process of its own: stream so many rows, and print how much memory is held."""
    torch.set_num_threads(1)
    if what == "trace":
        with TemporaryDirectory() as folder:
            data = watched(map(ids, range(rows)), rows)
            moescope.trace(tiny(), data, Path(folder) / "a.duckdb", stream=True, batch_tokens=4096)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / what
        write(path, rows)
        for _ in watched(stream(path).examples, rows):
            pass


def memory(what: str, rows: int) -> list[int]:
    """Bytes held after each tenth."""
    command = [sys.executable, "-m", "benchmarks.inputs", "--memory", what, "--rows", str(rows)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in found.stdout.splitlines() if line.isdigit()]


def rates(rounds: int = 5) -> dict[str, list[float]]:
    """Tokens for each CPU second of tracing the shipped texts, round by round."""
    ways: dict[str, dict[str, Any]] = {
        "held": {}, "stream": {"stream": True}, "stream, 4,096 tokens": {"stream": True, "batch_tokens": 4096},
    }  # fmt: skip
    model, found = load("mixtral"), {name: list[float]() for name in ways}
    with TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, how in ways.items():
                with spent() as used:
                    run = moescope.trace(model, "text", Path(folder) / f"{name}{number}.duckdb", limit=300, **how)
                with moescope.open(Path(folder) / f"{name}{number}.duckdb") as store:
                    tokens = store.rows("select tokens from runs where run = ?", [run])[0][0]
                found[name] += [tokens / used.cpu] if number else []  # the first round warms up
    return found


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--memory", "what", help="In this process: stream one container, or a trace.")
def main(rows: int, what: str | None) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    if what is not None:
        memory_of(what, rows)
        return
    model = load("mixtral")
    print("\n| batches of the shipped texts | batches | padding |\n|---|---|---|")
    for name, way in (("8 sequences", {}), ("32 sequences", {"batch_size": 32}),
                      *((f"{n:,} tokens", {"batch_tokens": n}) for n in (1024, 4096, 16384))):  # fmt: skip
        batches, share = padding(model, **way)
        print(f"| {name} | {batches:,} | {100 * share:.1f} % |")
    print(f"\n| {rows:,} rows of | MB after a tenth | at the end | most, against a tenth |\n|---|---|---|---|")
    for one in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "trace"):
        held = memory(one, rows)
        print(
            f"| {one} | {held[0] / 1e6:,.0f} | {held[-1] / 1e6:,.0f} | {100 * (max(held) / held[0] - 1):+.1f} % |", flush=True
        )
    print("\n| tokens a CPU second | median | against data that are held |\n|---|---|---|")
    found = rates()
    for name, values in found.items():
        ratio = statistics.median(v / h for v, h in zip(values, found["held"]))
        print(f"| {name} | {statistics.median(values):,.0f} | {ratio:.3f} × |")


if __name__ == "__main__":
    main()
