"""What a model of real size takes: python -m benchmarks.loading [FOLDER]

Makes a sharded Mixtral of random weights of 3 GB in bfloat16 in FOLDER (or TMPDIR; on a disk: files in /dev/shm are memory),
traces ten short texts with it in a process of its own, and prints the peak of memory beside the size of the weights: as it is
loaded by default, and with most of it on the disk under a limit (RLIMIT_DATA) that is below its size.
"""

import os
import sys
import tempfile
from pathlib import Path

from .peaks import Peak, peak, traced
from .sharded import make

LIMIT = 2_500_000_000  # bytes of memory of its own that the second trace may have
_OVER, _BESIDE = 1.15, 1_000_000_000  # what is allowed: so many times the weights, and so much beside them


def main(folder: Path) -> int:
    """Make, trace, print; gives 1 if a trace failed or took more than it may."""
    weights = make(folder / "model")
    texts = folder / "texts.txt"
    texts.write_text("".join(f"Text number {n}: the quick brown fox jumps over the lazy dog.\n" for n in range(10)))
    print(f"{weights / 1e9:.2f} GB of weights in bfloat16; allowed {(_OVER * weights + _BESIDE) / 1e9:.2f} GB")
    plain = peak(traced(str(folder / "model"), str(texts), str(folder / "plain.duckdb")))
    _show("in memory", plain, weights)
    apart = {**os.environ, "TMPDIR": str(folder)}
    bounds = ["--max-memory", "cpu=1GB"]
    spread = peak(traced(str(folder / "model"), str(texts), str(folder / "disk.duckdb"), *bounds), limit=LIMIT, env=apart)
    _show(f"1 GB in memory, the rest on the disk, limit {LIMIT / 1e9:.1f} GB", spread, weights)
    kept = plain.resident <= _OVER * weights + _BESIDE and spread.resident < weights
    return int(bool(plain.code or spread.code or not kept))


def _show(what: str, found: Peak, weights: int) -> None:
    print(
        f"{what}: resident {found.resident / 1e9:.2f} GB ({found.resident / weights:.2f} × weights), of that no file's "
        f"{found.anonymous / 1e9:.2f} GB, {found.seconds:.0f} s, exit {found.code} {found.said}"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp(prefix="moescope-loading-"))))
