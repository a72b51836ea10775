"""What the analyses cost on a large store, one after the other in one process, as `moescope analyze --all` runs them.

python -m benchmarks.speed.analyses [--decisions 10000000] [--store big.duckdb] [NAME ...]  (made where it is missing)

Tokens have a domain, a part of speech and a supersense, three quarters of them settled by the token id; one run, no logits.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.measure import resident, spent
from benchmarks.scale.dashboard import build
from moescope import analyses
from moescope.errors import AnalysisError
from moescope.store import Store, open_store
from moescope.store.write.change import change_store

LABELS = """insert into {}
select token, 'upos', list_extract(['NOUN', 'VERB', 'ADJ', 'ADP', 'DET', 'PRON', 'ADV', 'PUNCT'],
  1 + (if(hash(token, 'u') % 4 = 0, hash(token, 'v'), vocab_id) % 8)::int) from tokens
union all
select token, 'supersense', 'n.' || if(hash(token, 's') % 4 = 0, hash(token, 't'), vocab_id) % 12
from tokens where vocab_id % 2 = 0"""


def _labelled(con: Any) -> None:
    """Give tokens their labels, in the store's own table (beside which a large run has shards)."""
    apart = con.execute("select 1 from duckdb_tables() where table_name = 'token_labels_here'").fetchone()
    con.execute(LABELS.format("token_labels_here" if apart else "token_labels"))


def peak(anew: bool = False) -> float:
    """Largest resident megabytes of this process since it was last asked `anew` (Linux; elsewhere what it holds now)."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resident() / 2**20


def cost(store: Store, name: str) -> tuple[float, float, float, int, str]:
    """CPU seconds, wall seconds, peak megabytes and figures of one analysis, and why it refused if it did."""
    peak(anew=True)
    figures, refusal = 0, ""
    with spent() as took:
        try:
            figures = len(analyses.run(name, store).frames["figures"])
        except AnalysisError as reason:
            refusal = str(reason)
    return took.cpu, took.wall, peak(), figures, refusal


@click.command()
@click.argument("names", nargs=-1)
@click.option("--decisions", default=10_000_000, show_default=True)
@click.option("--store", type=click.Path(path_type=Path))
@click.option("--experts", default=64, show_default=True)
@click.option("--top-k", default=2, show_default=True)
def main(names: tuple[str, ...], decisions: int, store: Path | None, experts: int, top_k: int) -> None:
    """Print a table: CPU s, wall s, peak MB and figures of every analysis (or of NAMES), and the sum."""
    store = store or Path(tempfile.mkdtemp()) / "big.duckdb"
    if not store.exists():
        build(store, decisions, experts=experts, top_k=top_k)
        change_store(store, _labelled)
    known = [entry["name"] for entry in analyses.catalogue() if not entry["required"]]
    rows = []
    print(f"{'analysis':<16}{'CPU s':>8}{'wall s':>8}{'peak MB':>9}{'figures':>9}", flush=True)
    with open_store(store) as opened:
        held = opened.rows("select sum(decisions) from runs")[0][0]
        for name in names or known:
            rows.append(cost(opened, name))
            cpu, wall, most, figures, refusal = rows[-1]
            print(f"{name:<16}{cpu:8.1f}{wall:8.1f}{most:9.0f}{figures:9}  {refusal[:60]}", flush=True)
    cpu, wall, most = sum(r[0] for r in rows), sum(r[1] for r in rows), max(r[2] for r in rows)
    print(f"{'all':<16}{cpu:8.1f}{wall:8.1f}{most:9.0f}{sum(r[3] for r in rows):9}")
    print(f"{held:,} decisions, top {top_k} of {experts}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
