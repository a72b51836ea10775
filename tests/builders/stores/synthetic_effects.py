"""Effects of ablations, and thirty steps of training, for a synthetic store."""

import json
from pathlib import Path

import duckdb
import pandas as pd


def add_effects(store: Path) -> Path:
    """Every expert of routers 1 and 2 of run 0 ablated, by domain, with controls; and curves of its training."""
    rows = [
        {
            "run": 0, "ablation": "k", "router": router, "expert": expert, "experts": json.dumps({f"gate {router}": [expert]}),
            "mode": "zero", "load": 0.1 + expert / 100, "control": control, "group_kind": kind, "group": group,
            "counted_at": "target", "n": 100, "units": 3, "delta_nll": expert / 50, "ci_low": -0.01, "ci_high": 0.3, "p": 0.04,
            "q": 0.05, "control_delta_nll": 0.02, "kl": 0.1, "rerouted": 0.2,
        }
        for router in (1, 2) for expert in range(8) for control in ("none", "load", "random")
        for kind, group in (("all", "all"), ("domain", "law"), ("domain", "<script>"))
    ]  # fmt: skip
    health = [
        {"run": 0, "router": r, "name": name, "subset": f"step {step}", "value": 0.5}
        for r in range(3) for name in ("load_entropy", "max_violation", "z_loss", "balance_switch") for step in range(30)
    ]  # fmt: skip
    with duckdb.connect(str(store)) as con:
        for table, found in (("ablations", pd.DataFrame(rows)), ("measures", pd.DataFrame(health))):
            con.register("found", found)
            con.execute(f"insert into {table} by name from found")
            con.unregister("found")
    return store
