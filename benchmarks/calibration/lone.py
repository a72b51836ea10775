"""One planted expert among 48 layers of 128 experts and five labels, asked of a whole store.

PYTHONPATH=tests/builders/stores python -m benchmarks.calibration.lone [--strength 0.7]
"""

import resource
import tempfile
import time
from pathlib import Path

import click
import worlds

from moescope import analyses


@click.command()
@click.option("--strength", default=0.7, show_default=True, help="Added to the logits of expert 77 of layer 20, in label 2.")
@click.option("--layers", default=48, show_default=True)
@click.option("--top-k", default=8, show_default=True)
@click.option("--tokens", default=120, show_default=True, help="Of each of 100 documents.")
def main(strength: float, layers: int, top_k: int, tokens: int) -> None:
    """Print who is named, and the planted cell."""
    world = worlds.World((20,) * 5, (tokens,) * 5, layers=layers)
    plant = worlds.Plant(min(20, layers - 1), 77, strength, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lone.duckdb"
        worlds.make(path, world, 0, (128, top_k), (plant,))
        start = time.process_time()
        answer = analyses.run("specialization", path)
    named, cells = answer.frames["specialists"], answer.figures("share of load by label")
    own = cells[(cells["layer"] == plant.layer) & (cells["expert"] == 77) & (cells["subset"] == "domain=label 2")].iloc[0]
    print(named[["layer", "expert", "subset", "value", "overall", "q"]].to_string(index=False))
    print(f"planted: share {own['value']:.4f} against {own['chance']:.4f}, p {own['p']:.2g}, q {own['q']:.2g}, {own['p_from']}")
    print(f"{len(cells):,} cells; {time.process_time() - start:.0f} CPU s, "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")  # fmt: skip
    print(answer.reading)


if __name__ == "__main__":
    main()
