"""Stores as odd as those that people bring: hardly anything in them, or much of one kind; every page must say what it lacks."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import synthetic
import synthetic_app
import synthetic_training
import told

import moescope
from moescope.store import RunWriter
from moescope.store.write.change import change_store

TOP2 = {"router": 0, "experts": 4, "top_k": 2}
MARKUP = ["<b>bold</b>", "**strong** _em_ `code`", "👩‍👩‍👧‍👦🏳️‍🌈", "\u202eשלום עולם\u202c", "long " * 80,
          "$x^2$ :red[a] :material/home:", "[a](javascript:alert(1))", "</script><img src=x>", "a=b&c=d?e#f",
          "|a|b|", "", " ", "null", "'; --"]  # fmt: skip


def one_token(path: Path) -> Path:
    """One token, one decision, no text."""
    return told.written(path, [TOP2], {0: np.array([[[2, 0]]])}, [], units=("text",), name="one token")


def one_expert(path: Path) -> Path:
    """A router with a single expert: nothing to choose, an even share of 1."""
    router = {"router": 0, "experts": 1, "top_k": 1}
    chosen = {0: np.zeros((1, 6, 1), int)}
    return told.written(path, [router], chosen, [], tokens=3, units=("text",), text=True, name="one expert")


def wide(path: Path) -> Path:
    """256 experts, top-8."""
    synthetic.make(path, synthetic.tilt(2.0), documents=4, tokens=30, experts=256, k=8, name="wide")
    return path


def encoder_decoder(path: Path) -> Path:
    """Switch, alone in its store."""
    synthetic_app.switch_run(path)
    return path


def images(path: Path) -> Path:
    """A V-MoE, alone in its store."""
    synthetic_app.image_run(path, images=4, side=3)
    return path


def collapsed(path: Path) -> Path:
    """A training run at whose end experts are dead."""
    synthetic_training.trained(path, steps=30)
    return path


def measured(path: Path) -> Path:
    """A training run of which only health was recorded."""
    synthetic_training.trained(path, steps=5, measured_only=True)
    return path


def counted(path: Path) -> Path:
    """Counts of llama.cpp: no token, no decision."""
    table = path.with_suffix(".csv")
    table.write_text("layer,expert,count\n" + "".join(f"{layer},{e},{7 * e + layer}\n" for layer in (0, 2) for e in range(4)))
    _imported(table, path)
    return path


def unweighted(path: Path) -> Path:
    """A table of sets of experts: no weight, no text, layers 0 and 2."""
    rng, rows = np.random.default_rng(0), []
    for sequence in "ab":
        for position in range(5):
            rows += [(sequence, position, layer, rng.permutation(4)[:2].tolist()) for layer in (0, 2)]
    table = path.with_suffix(".jsonl")
    pd.DataFrame(rows, columns=["sequence", "position", "layer", "expert"]).to_json(table, orient="records", lines=True)
    _imported(table, path)
    return path


def _imported(table: Path, path: Path) -> None:
    facts = {"model_type": "mixtral", "num_hidden_layers": 3, "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 9}
    model = path.with_suffix(".json")
    model.write_text(json.dumps(facts))
    moescope.import_captures([table], path, model=str(model))


def markup(path: Path) -> Path:
    """Names, labels, documents and data sets that try every markup; labels of sequences and of tokens."""
    words = [f"{text or 'nothing'}" for text in MARKUP]
    synthetic_app.text_run(path, MARKUP[1] + MARKUP[0], documents=6, words=words * 2)
    with duckdb.connect(str(path)) as con:
        con.execute("create temp table odd as select * from (select unnest(?) as word, unnest(range(?)) as number)",
                    [MARKUP, len(MARKUP)])  # fmt: skip
        con.execute("update sequence_labels set label = (select word from odd where number = sequence % 14)")
        con.execute("update sequences set document = (select word from odd where number = sequence % 14) || sequence")
        con.execute("update token_labels set label = (select word from odd where number = token % 14), kind = 'a <i>kind</i>'")
        con.execute("update runs set dataset = (select word from odd where number = 4)")
        con.execute("update models set name = (select word from odd where number = 4)")
    return path


def textless(path: Path) -> Path:
    """Vocabulary ids without a word of text, and no label at all."""
    synthetic.make(path, documents=3, tokens=12, name="textless")
    bare = ("delete from vocab", "delete from sequence_labels", "delete from token_labels", "delete from label_rollup",
            "update sequences set domain = null, document = null")  # fmt: skip
    change_store(path, lambda con: [con.execute(sql) for sql in bare])
    return path


def identity(path: Path) -> Path:
    """Experts that give their input back, beyond the routed ones; layer 0 is dense, every second token is dropped somewhere."""
    rng = np.random.default_rng(3)
    routers = [{"router": r, "experts": 4, "top_k": 2, "layer": r + 1, "capacity_factor": 1.0} for r in (0, 1)]
    chosen = {r: np.stack([rng.permutation(6)[:2] for _ in range(24)])[None] for r in (0, 1)}
    told.written(path, routers, chosen, [], tokens=6, units=("text",), text=True, name="identity")
    with duckdb.connect(str(path)) as con:
        con.execute("insert into experts by name select router, e as expert, 'identity' as role from routers, range(4, 6) t(e)")
    return path


def dropping(path: Path) -> Path:
    """A capacity of a few tokens: most of what was asked for did not run."""
    synthetic.make(path, synthetic.tilt(4.0), documents=4, tokens=20, experts=4, k=1, capacity=6, name="dropping")
    return path


def layerless(path: Path) -> Path:
    """Measures and effects of which some rows have a layer, a router or an expert, and some have none."""
    synthetic.make(path, documents=6, tokens=20, name="layerless")
    where = [{}, {"router": 0, "layer": 0}, {"layer": 2}, {"router": 1}, {"router": 1, "expert": 2}]
    rows = [{"run": 0, "name": name, "value": v, "subset": "step 1", **place} for v, place in enumerate(where)
            for name in ("load_entropy", "participation_ratio", "z_loss")]  # fmt: skip
    effect = {"run": 0, "ablation": "k", "mode": "zero", "control": "none", "group_kind": "all", "group": "all",
              "counted_at": "target", "n": 100, "units": 3, "delta_nll": 0.1}  # fmt: skip
    several = [
        effect | {"experts": '{"layers.0.mlp.gate": [1, 2]}'},
        effect | {"experts": '{"layers.0.mlp.gate": [1]}', "router": 0, "expert": 1, "ci_low": 0.0, "ci_high": 0.2},
    ]
    with duckdb.connect(str(path)) as con:
        for table, found in (("measures", pd.DataFrame(rows)), ("ablations", pd.DataFrame(several))):
            con.register("found", found)
            con.execute(f"insert into {table} by name from found")
            con.unregister("found")
    return path


def nothing_ran(path: Path) -> Path:
    """A run that was closed before its first forward."""
    RunWriter.create(path, synthetic._head((0, 2), 4, 2, "nothing")).close({"status": "complete"}, {"batches": 0})
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (one_token, one_expert, wide, encoder_decoder, images, collapsed, measured, counted, unweighted, markup,
                 textless, identity, dropping, layerless, nothing_ran)
}  # fmt: skip
