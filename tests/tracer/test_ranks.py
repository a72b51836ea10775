"""Models that two processes of a real torchrun run together: row by row as one process has them, or refused."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from places import ROOT
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from two_ranks import SPREAD, calls

import moescope
from moescope import ranks
from moescope.cli import main
from moescope.errors import InputError, ModelError
from moescope.interventions import ablate
from moescope.models import tiny
from moescope.models.loading import Loaded, load, specimens
from moescope.store.write.many.together import Counted, Elsewhere

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Ein zweiter Text, etwas länger als der erste.", "def f(x): return x"]
OWN = (
    "ModelError: FSDPQwen3MoeForCausalLM is spread over processes in a way that cannot be traced: every rank runs tokens of "
    "its own (fsdp_size, dp_replicate_size), of which one alone would be kept; spread it by DistributedConfig(tp_plan='auto'), "
    "with ep_size=the number of processes for its experts"
)
TOGETHER = "; start all of them with the same command, model and data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved models; what two processes said and kept."""
    home = tmp_path_factory.mktemp("ranks")
    for family in ("mixtral", "qwen3_moe"):
        tiny.build(family).model.save_pretrained(home / family)  # type: ignore[operator]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(
        vocab_size=4096, num_key_value_heads=2, initializer_range=0.2, eos_token_id=None, pad_token_id=0, **sizes
    )
    MixtralForCausalLM(config).save_pretrained(home / "texts")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(specimens()["mixtral"] / name, home / "texts" / name)
    (home / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint"]
    call += ["localhost:0", str(ROOT / "tests" / "programs" / "two_ranks.py"), str(home)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return home


def rows(store: Path, run: int = 0) -> list[tuple[Any, ...]]:
    """Every assignment, and what its token is."""
    query = """select f.forward, f.phase, r.name, s.source_row, t.position, t.vocab_id, t.generated, a.slot, a.expert, a.weight
        from assignments a join routers r using (router) join forwards f using (forward) join tokens t using (token)
        join sequences s using (sequence) where r.run = ? order by all"""
    with moescope.open(store) as opened:
        return list(opened.rows(query, [run]))


def same(theirs: list[tuple[Any, ...]], ours: list[tuple[Any, ...]]) -> None:
    assert len(ours) > 100
    assert [row[:-1] for row in theirs] == [row[:-1] for row in ours]
    np.testing.assert_allclose([row[-1] for row in theirs], [row[-1] for row in ours], rtol=0, atol=3e-6)


@pytest.mark.sampled(0)
@pytest.mark.slow
def test_what_two_processes_keep_is_what_one_has(folder: Path, tmp_path: Path) -> None:
    for number, (name, (family, _)) in enumerate(SPREAD.items()):
        model = AutoModelForCausalLM.from_pretrained(folder / family).eval()
        with moescope.Tracer(model, alone := tmp_path / f"{number}.duckdb"):
            calls(model)
        same(rows(folder / f"{name}.duckdb"), rows(alone))
        with moescope.open(folder / f"{name}.duckdb") as store:
            assert store.rows("select run, status from runs") == [(0, "complete")]
            assert {e for (e,) in store.rows("select experts from routers")} == {8}
    moescope.trace(str(folder / "texts"), str(folder / "texts.txt"), tmp_path / "alone.duckdb", generate=2)
    same(rows(folder / "command.duckdb"), rows(tmp_path / "alone.duckdb"))


@pytest.mark.slow
def test_what_does_not_fit_together_is_one_sentence_in_every_process(folder: Path) -> None:
    said, other = (json.loads((folder / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert said == other
    assert {name: said.pop(name) for name in SPREAD} == dict.fromkeys(SPREAD, "run 0")
    disagree = "the processes of this trace disagree: for "
    assert said.pop("other texts").startswith(f"InputError: {disagree}data, rank 0 has ")
    assert said == {
        "own tokens": OWN,
        "other tokens": "ModelError: what rank 1 of the model decided is not what rank 0 did (120 and 120 rows): they were "
        "given other tokens, or compute otherwise; nothing of this run is kept",
        "other options": f"InputError: {disagree}option weights, rank 0 has True and rank 1 has False{TOGETHER}",
        "other command": f"exit 2: moescope: {disagree}--limit, rank 0 has 2 and rank 1 has 3{TOGETHER}",
        "command": "exit 0: ",
        "command, resumed": "exit 2: moescope: a trace in several processes cannot be gone on with; trace without --resume, "
        "and keep what is there with moescope recover",
    }
    assert not (folder / "other.duckdb").exists() or moescope.open(folder / "other.duckdb").rows("from runs") == []


def model(**config: Any) -> nn.Module:
    made = nn.Linear(1, 1)
    made._device_mesh = SimpleNamespace(size=lambda: 2)  # type: ignore[assignment]
    made.config = SimpleNamespace(distributed_config=SimpleNamespace(**config))  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"fsdp_size": 2}, "every rank runs tokens of its own"),
        ({"dp_replicate_size": 2}, "every rank runs tokens of its own"),
        ({"pp_size": 2}, "a rank runs some of the layers only"),
        ({"enable_expert_parallel": True}, "its routers give every rank numbers of its own for the experts"),
    ],
)
def test_ways_to_spread_that_would_be_recorded_wrongly(config: dict[str, Any], why: str) -> None:
    spread = model(**config)
    spread._ep_plan = {"layers.*.mlp.gate": "ep_router"}  # type: ignore[assignment]
    with pytest.raises(ModelError, match=f"Linear is spread over processes in a way that cannot be traced: {why}"):
        ranks.together(spread)


def test_several_processes_do_not_ablate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ModelError, match="Linear is run by several processes, which cannot ablate it together; load it in one"):
        ablate(Loaded("x", model()), tmp_path / "s.duckdb")


def test_one_process_is_not_several() -> None:
    assert ranks.together(nn.Linear(1, 1)) is None
    with pytest.raises(InputError, match=r"only where several were started: torchrun --nproc-per-node 2 -m moescope trace"):
        load("mixtral", parallel="tensor")
    with pytest.raises(InputError, match="parallel 'rows' is not one of tensor, expert"):
        load("mixtral", parallel="rows")
    with pytest.raises(InputError, match="device 'cpu' cannot be asked of a model that several processes run"):
        load("mixtral", parallel="expert", device="cpu")


def test_processes_that_nobody_joined_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    asked = ["trace", "mixtral", "--data", "text", "--store", str(tmp_path / "s.duckdb")]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert done.output == (
        "moescope: several processes were started (RANK, WORLD_SIZE) without MASTER_ADDR: start them by torchrun, or set both "
        "to the first one's host and a free port, as for torch.distributed\n"
    )
    ablated = CliRunner().invoke(main, ["ablate", "mixtral", "--store", str(tmp_path / "s.duckdb"), "--experts", "3:5"])
    assert ablated.output.startswith("moescope: this is one of 2 processes, each of which would ablate the whole model")
    assert "--device excludes" in CliRunner().invoke(main, [*asked, "--tensor-parallel", "--device", "cpu"]).output
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_keeps_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for end in (Elsewhere.discard, Elsewhere.release):
        writer = Elsewhere.beside({"run": {"name": "x"}, "model": {"name": "m"}, "routers": [], "experts": []})
        writer.add("tokens", {"token": np.arange(5), "vocab_id": np.arange(5)})
        writer.commit({})
        assert list(tmp_path.glob("moescope-rank-*/**/*.parquet")) == []
        assert writer.seen[0] == 0
        end(writer)
        assert list(tmp_path.iterdir()) == []


def test_the_sum_over_rows_knows_them_and_not_their_order(tmp_path: Path) -> None:
    head = {"run": {"name": "x"}, "model": {"name": "m"}, "routers": [], "experts": []}
    row = random.Random(0)
    columns = {name: np.array([row.randrange(50) for _ in range(40)]) for name in ("forward", "router", "token", "e0", "e1")}

    def seen(pieces: list[np.ndarray], **changed: Any) -> tuple[int, int]:
        writer = Counted.create(tmp_path / "s.duckdb", head)
        for piece in pieces:
            writer.add("routes_2", {name: values.take(piece) for name, values in (columns | changed).items()})
        writer.discard()
        return writer.seen

    whole = seen([np.arange(40)])
    assert seen([np.arange(39, 9, -1), np.arange(10)]) == whole
    assert whole[0] == 40
    for name, values in columns.items():
        other = values.copy()
        other[7] += 1
        assert seen([np.arange(40)], **{name: other}) != whole
    assert seen([np.arange(40)], e0=columns["e1"], e1=columns["e0"]) != whole
    empty = pa.array([None, *columns["e1"][1:]], pa.uint16())  # no second expert, in an unsigned column
    assert seen([np.arange(40)], e1=empty) != whole
    assert seen([np.arange(40)], e1=pa.array(columns["e1"], pa.uint16())) == whole
