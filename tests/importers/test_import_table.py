"""Any table: a user's CSV, Parquet, JSON lines, Arrow, arrays and frames; decisions, counts and labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common_imports import rows, said
from pyarrow import feather, parquet

import moescope
from moescope import analyses, errors
from moescope.store.integrity.verify import verify

# (sequence, position, layer, rank, slot, expert, weight): weights are not in the order of the table
KNOWN = [
    ("a", 0, 1, [(2, 0.25), (0, 0.5)]), ("a", 0, 3, [(1, 0.75), (3, 0.125)]),
    ("a", 1, 1, [(3, 0.5), (1, 0.375)]), ("a", 1, 3, [(0, 0.5), (2, 0.25)]),
    ("b", 0, 1, [(0, 0.25), (2, 0.625)]), ("b", 0, 3, [(3, 0.5), (0, 0.25)]),
]  # fmt: skip
STORED = [
    (int(s == "b"), p, layer, int(w < max(x[1] for x in chosen)), slot, e, w)
    for s, p, layer, chosen in KNOWN
    for slot, (e, w) in enumerate(chosen)
]


def long() -> pd.DataFrame:
    found = [(s, p, layer, e, w, {"a": "code", "b": "news"}[s]) for s, p, layer, chosen in KNOWN for e, w in chosen]
    return pd.DataFrame(found, columns=["sequence", "position", "layer", "expert", "weight", "domain"])


def listed() -> pd.DataFrame:
    found = [(s, p, layer, [e for e, _ in c], [w for _, w in c]) for s, p, layer, c in KNOWN]
    return pd.DataFrame(found, columns=["sequence", "position", "layer", "expert", "weight"])


def wide() -> pd.DataFrame:
    found = [(s, p, layer, c[0][0], c[1][0], c[0][1], c[1][1]) for s, p, layer, c in KNOWN]
    return pd.DataFrame(found, columns=["sequence", "position", "layer", "e0", "e1", "w0", "w1"])


def _npz(path: Path) -> None:
    frame = listed()
    lists = {name: np.array(frame[name].tolist()) for name in ("expert", "weight")}
    np.savez(
        path, **{n: frame[n].to_numpy(str if n == "sequence" else int) for n in ("sequence", "position", "layer")}, **lists
    )


FILES: dict[str, Callable[[Path], Any]] = {
    "long.csv": lambda path: long().to_csv(path, index=False), "wide.csv": lambda path: wide().to_csv(path, index=False),
    "long.tsv": lambda path: long().to_csv(path, index=False, sep="\t"),
    "shuffled.parquet": lambda path: long().sample(frac=1, random_state=1).assign(slot=0).to_parquet(path),
    "list.parquet": lambda path: parquet.write_table(pa.Table.from_pandas(listed()), path),
    "list.jsonl": lambda path: listed().to_json(path, orient="records", lines=True),
    "list.arrow": lambda path: feather.write_feather(pa.Table.from_pandas(listed()), str(path), compression="uncompressed"),
    "list.npz": _npz,
}  # fmt: skip


def test_files_of_every_kind(tmp_path: Path) -> None:
    store = tmp_path / "a.duckdb"
    for run, (name, write) in enumerate(FILES.items()):
        write(tmp_path / name)
        done = moescope.import_captures([tmp_path / name], store)
        assert (name, done.kind, done.sequences) == (name, "table", 2)
        found = rows(store, run, whole=False)
        if "shuffled" in name:  # the order is lost, ranks are known by weights
            assert _by_rank(found) == _by_rank(STORED)
        else:
            assert found == STORED


def _by_rank(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without slots."""
    return sorted((*row[:4], *row[5:]) for row in found)


@pytest.mark.parametrize("make", [long, listed, wide], ids=lambda make: make.__name__)
def test_frames(make: Callable[[], pd.DataFrame], tmp_path: Path) -> None:
    moescope.import_table(make(), tmp_path / "a.duckdb", name="mine")
    moescope.import_table(pa.Table.from_pandas(make()), tmp_path / "a.duckdb")
    assert rows(tmp_path / "a.duckdb") == STORED
    assert rows(tmp_path / "a.duckdb", 1) == STORED
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select name from runs order by run") == [("mine",), ("frame",)]
        assert store.rows("select layer, experts, top_k from routers where run = 0") == [(1, 4, 2), (3, 4, 2)]
        if make is long:
            assert store.rows("select document, domain from sequences where run = 0 order by 1") == [
                ("the frame:a", "code"), ("the frame:b", "news"),
            ]  # fmt: skip


def test_columns_of_other_names(tmp_path: Path) -> None:
    names = {"sequence": "who", "position": "at", "layer": "deep", "expert": "which one", "weight": "p", "labels": "domain"}
    long().rename(columns=names).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "columns.json").write_text(json.dumps(names))
    (tmp_path / "columns.toml").write_text("".join(f'{role} = "{column}"\n' for role, column in names.items()))
    ways: list[dict[str, Any]] = [names, {"columns": tmp_path / "columns.json"}, {"columns": tmp_path / "columns.toml"}]
    for run, wanted in enumerate(ways):
        moescope.import_table(tmp_path / "a.csv", tmp_path / "a.duckdb", **wanted)
        assert rows(tmp_path / "a.duckdb", run, whole=False) == STORED


def test_ranks_are_known_by_weight_or_said_and_else_are_not(tmp_path: Path) -> None:
    bare = long().drop(columns="weight")
    moescope.import_table(bare, tmp_path / "a.duckdb")
    assert rows(tmp_path / "a.duckdb") == [(*row[:3], None, *row[4:6], None) for row in STORED]
    assert "the order of experts is not known to be that of their weights" in said(tmp_path / "a.duckdb")
    with pytest.raises(errors.AnalysisError, match="without ranks"):
        analyses.run("path_probe", tmp_path / "a.duckdb")
    structure = analyses.run("structure", tmp_path / "a.duckdb")
    assert not structure.frames["figures"]["name"].str.contains("first choice|path").any()
    assert any("without ranks" in note for note in structure.notes)
    ranked = bare.assign(rank=[row[3] for row in STORED])
    moescope.import_table(ranked, tmp_path / "b.duckdb")
    by_rank = sorted(STORED, key=lambda row: (row[:3], row[3]))
    assert rows(tmp_path / "b.duckdb") == [(*row[:4], row[3], row[5], None) for row in by_rank]


def test_a_column_of_runs_gives_a_run_each(tmp_path: Path) -> None:
    frame = pd.concat([long().assign(run="base"), long().assign(run="tuned", expert=3 - long()["expert"])])
    done = moescope.import_table(frame, tmp_path / "a.duckdb", name="mine")
    assert done.runs == [0, 1]
    assert rows(tmp_path / "a.duckdb") == STORED
    assert rows(tmp_path / "a.duckdb", 1) == [(*row[:5], 3 - row[5], row[6]) for row in STORED]
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select name from runs order by run") == [("mine base",), ("mine tuned",)]


@pytest.mark.parametrize("text", [False, True])
def test_tokens_by_id_or_by_text_and_those_that_the_model_made(text: bool, tmp_path: Path) -> None:
    frame = long()
    tokens = {("a", 0): 7, ("a", 1): 9, ("b", 0): 7}
    at = [tokens[key] for key in zip(frame["sequence"], frame["position"])]
    moescope.import_table(
        frame.assign(token=[f"t{t}" for t in at] if text else at, generated=frame["position"] > 0), tmp_path / "a.duckdb"
    )
    with moescope.open(tmp_path / "a.duckdb") as store:
        column = "text" if text else "vocab_id"
        found = store.rows(f"select {column}, generated from token_text order by sequence, position")
        assert found == [(f"t{t}" if text else t, made) for t, made in ((7, False), (9, True), (7, False))]


def test_counts_by_domain_as_olmoe_releases_them(tmp_path: Path) -> None:
    """Layers 0, 7 and 15 alone, 64 experts, one count for each expert and domain."""
    rng = np.random.default_rng(0)
    cells = [(d, layer, e, int(rng.integers(0, 9000))) for d in ("arxiv", "c4") for layer in (0, 7, 15) for e in range(64)]
    frame = pd.DataFrame(cells, columns=["domain", "layer", "expert", "count"])
    frame.to_csv(tmp_path / "counts.csv", index=False)
    config = {"model_type": "olmoe", "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    moescope.import_captures([tmp_path / "counts.csv"], tmp_path / "a.duckdb", model=tmp_path)
    total = frame.groupby(["layer", "expert"])["count"].sum()
    with moescope.open(tmp_path / "a.duckdb") as store:
        found = store.rows("select layer, expert, assignments from expert_load order by all")
        assert found == [(layer, expert, int(n)) for (layer, expert), n in total.items()]
        by_domain = store.rows("select label, layer, expert, assignments from label_load where kind = 'domain' order by all")
        assert by_domain == cells
        assert store.rows("select decisions, assignments from runs") == [(0, int(total.sum()))]


REFUSED: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "no layer": (long().drop(columns="layer"), {}, "no column that is the layer"),
    "no such column": (long(), {"expert": "eid"}, "has no column 'eid'"),
    "no position": (long().drop(columns="position"), {}, "no column that is the token's position"),
    "words": (long().assign(expert="x"), {}, "12 rows have no whole number"),
    "below 0": (long().assign(expert=-1), {}, "12 rows have no whole number"),
    "twice": (long().assign(expert=1), {}, "expert 1 twice"),
    "two labels": (long().assign(domain=[f"d{i}" for i in range(12)]), {}, "its domain is 'd0' and 'd1'"),
    "no table": (pd.DataFrame(), {}, "no column|no table"),
    "other option": (long(), {"colour": "red"}, "no setting 'colour'"),
    "other model": (long(), {"experts": 3, "top_k": 2, "layers": 4}, "expert 3 in layer"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be(name: str, tmp_path: Path) -> None:
    frame, options, words = REFUSED[name]
    with pytest.raises(errors.InputError, match=words):
        moescope.import_table(frame, tmp_path / "a.duckdb", **options)
    assert not (tmp_path / "a.duckdb").exists()


OF_ANY_NUMBER = [  # sequence, position, layer, experts with their weights
    ("a", 0, 1, [(3, 0.75), (1, 0.25)]), ("a", 0, 3, [(2, 1.0)]), ("a", 1, 1, [(0, 1.0)]),
    ("a", 1, 3, [(1, 0.5), (3, 0.25), (0, 0.125)]),
    ("b", 0, 1, [(2, 0.625), (1, 0.375)]), ("b", 0, 3, [(3, 1.0)]),
]  # fmt: skip


def _any_long(weights: bool) -> pd.DataFrame:
    found = [(s, p, layer, e, w, slot) for s, p, layer, c in OF_ANY_NUMBER for slot, (e, w) in enumerate(c)]
    frame = pd.DataFrame(found, columns=["sequence", "position", "layer", "expert", "weight", "slot"])
    return frame if weights else frame.drop(columns="weight")


def _any_listed(weights: bool) -> pd.DataFrame:
    found = [(s, p, layer, [e for e, _ in c], [w for _, w in c]) for s, p, layer, c in OF_ANY_NUMBER]
    frame = pd.DataFrame(found, columns=["sequence", "position", "layer", "expert", "weight"])
    return frame if weights else frame.drop(columns="weight")


def _any_wide(weights: bool) -> pd.DataFrame:
    cells = [[c[i] if i < len(c) else (None, None) for i in range(3)] for *_, c in OF_ANY_NUMBER]
    frame = pd.DataFrame([row[:3] for row in OF_ANY_NUMBER], columns=["sequence", "position", "layer"])
    for i in range(3):
        frame[f"e{i}"] = [row[i][0] for row in cells]  # floats with NaN, as pandas holds whole numbers that lack
        if weights:
            frame[f"w{i}"] = [row[i][1] for row in cells]
    return frame


@pytest.mark.parametrize("weights", [True, False], ids=["weighed", "bare"])
@pytest.mark.parametrize("make", [_any_long, _any_listed, _any_wide], ids=lambda make: make.__name__.strip("_"))
def test_decisions_of_any_number_of_experts(make: Callable[[bool], pd.DataFrame], weights: bool, tmp_path: Path) -> None:
    store = tmp_path / "a.duckdb"
    done = moescope.import_table(make(weights), store, order="weight", experts=4, top_k=3, layers=4)
    assert [text for text in done.warnings if "1 to 3 experts" in text]
    with moescope.open(store) as opened:
        found = opened.rows(
            "select regexp_extract(s.document, ':(.*)', 1), position, layer, rank, slot, expert, weight from "
            "assignments join tokens t using (token, run) join sequences s on s.sequence = t.sequence join routers using "
            "(router, run) order by all"
        )
        assert found == [
            (s, p, layer, i, i, e, w if weights else None) for s, p, layer, c in OF_ANY_NUMBER for i, (e, w) in enumerate(c)
        ]  # fmt: skip
        assert opened.rows("select distinct top_k from routers") == [(None,)]
        assert opened.rows("select sum(assignments), sum(first) from load_rollup") == [(10, 6)]
        assert opened.rows("select layer, n from (select router, count(*) as n from decisions group by all) join routers using "
                           "(router) "
                           "order by all") == [(1, 3), (3, 3)]  # fmt: skip
        assert [one for one in verify(opened) if one.broken] == []


WRONG_CELLS = {
    "half an expert": lambda: long().assign(expert=[e + 0.5 for e in long()["expert"]]),
    "experts as truth values": lambda: long().assign(expert=True),
    "half a position": lambda: long().assign(position=[str(p + 0.5) for p in long()["position"]]),
    "half an expert in a list": lambda: listed().assign(expert=[[e + 0.25 for e in some] for some in listed()["expert"]]),
    "a word in wide columns": lambda: wide().assign(e1="none"),
    "an expert below 0": lambda: listed().assign(expert=[[-1, 2]] * len(listed())),
    "fewer weights than experts": lambda: listed().assign(weight=[[0.5]] * len(listed())),
    "a rank twice": lambda: long().drop(columns="weight").assign(rank=0),
    "ranks against the weights": lambda: long().assign(
        rank=[n % 2 for n in range(len(long()))], weight=[0.1, 0.9] * (len(long()) // 2)
    ),
    "weights that are none": lambda: long().assign(weight=float("inf")),
    "logits for weights": lambda: long().assign(weight=[-1.5, -2.5] * (len(long()) // 2)),
    "every row twice": lambda: pd.concat([long(), long()]),
    "no expert at all": lambda: listed().assign(expert=[[]] * len(listed())).drop(columns="weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CELLS)
def test_cells_that_are_none_of_what_they_should_be(case: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InputError) as caught:
        moescope.import_table(WRONG_CELLS[case](), tmp_path / "a.duckdb")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.duckdb").exists()
