"""How long everyday questions take over a large store; and how long it takes to open it."""

import statistics
import time
from pathlib import Path

import torch

import moescope
from benchmarks.measure import device
from benchmarks.synthetic import RoutingOnly

SCAN = "top tokens of every expert, counted from the rows"
QUESTIONS = {
    "load": "from expert_load",
    "entropy by layer": "select layer, routing_entropy from router_summary",
    "co-activation": "select layer, expert, other, share from coactivation order by n desc limit 20",
    "expert × domain": "from label_load where kind = 'domain'",
    "one token's route": "select * from assignments where token = 12345 order by router, rank",
    "top tokens of every expert": """
        select router, expert, vocab_id, assignments from vocab_load
        qualify row_number() over (partition by router, expert order by assignments desc) <= 10""",
    SCAN: """
        select * from (
          select router, expert, vocab_id, count(*) as n from assignments join tokens using (token) group by all)
        qualify row_number() over (partition by router, expert order by n desc) <= 10""",
}


def build(store: Path, decisions: int) -> None:
    """A store of about `decisions` top-2-of-8 decisions over eight layers."""
    model = RoutingOnly(8, 8, 2, 4096).eval()
    with torch.no_grad(), moescope.Tracer(model, store):
        for number in range(decisions // (8 * 4096)):
            model(torch.randint(0, 4000, (8, 512), generator=torch.Generator().manual_seed(number)).to(device()))


def ask(store: Path, rounds: int = 5, scan: bool = True) -> dict[str, tuple[float, float]]:
    """{question: (median, largest) wall seconds}, and opening; without `scan` only what kept sums or keys answer."""
    times: dict[str, list[float]] = {"opening": []}
    for _ in range(rounds):
        began = time.perf_counter()
        with moescope.open(store) as opened:
            times["opening"].append(time.perf_counter() - began)
            for name, query in QUESTIONS.items():
                if name == SCAN and not scan:
                    continue
                began = time.perf_counter()
                opened.sql(query).fetchall()
                times.setdefault(name, []).append(time.perf_counter() - began)
    return {name: (statistics.median(values), max(values)) for name, values in times.items()}
