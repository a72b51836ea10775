"""`verify` holds on a sound store, and names the rule that a planted damage breaks."""

import shutil
from pathlib import Path

import handmade
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.store.integrity.verify import verify
from moescope.store.schema import create_views
from moescope.store.write.change import change_store

WIDE = "update routes_2 set {} where token = 0 and router = 0"

DAMAGE = {
    "update runs set model = 9": "runs.model is in models",
    "update routers set run = 9 where router = 1": "routers.run is in runs",
    "update experts set router = 9 where router = 1 and expert = 2": "experts.router is in routers",
    "update sequences set run = 9 where sequence = 0": "sequences.run is in runs",
    "delete from sequences where sequence = 1": "tokens.sequence is in sequences",
    "insert into sequence_labels values (9, 'domain', 'x')": "sequence_labels.sequence is in sequences",
    "insert into pictures (run, sequence) values (0, 9)": "pictures.sequence is in sequences",
    "insert into token_labels values (9, 'upos', 'x')": "token_labels.token is in tokens",
    "update forwards set run = 9": "forwards.run is in runs",
    "delete from forwards where forward = 1": "decisions.forward is in forwards",
    WIDE.format("router = 9"): "decisions.router is in routers",
    "delete from tokens where token = 3": "decisions.token is in tokens",
    "insert into pools values (0, 9, 0, 0, 2, 1, null)": "pools.forward is in forwards",
    "insert into conditions values (0, 9, null, 'timestep', 1, null)": "conditions.forward is in forwards",
    "insert into conditions values (0, 0, 9, 'class', null, 'cat')": "conditions of one sequence name one that is there",
    "update routers set parent_router = 'nobody', parent_expert = 0 where router = 1":
        "branches of a tree name a router of their run and one of its experts",
    "update routers set parent_router = (select name from routers where router = 0), parent_expert = 3 where router = 1":
        "branches of a tree name a router of their run and one of its experts",
    "insert into load_rollup values (0, 9, 0, 1, 1, 0, 1)": "load_rollup.router is in routers",
    "insert into models from models": "models.model is unique",
    "insert into runs from runs": "runs.run is unique",
    "insert into runs select * replace (1 as run) from runs": "runs.uid is unique",
    "insert into routers from routers where router = 0": "routers.router is unique",
    "insert into sequences from sequences where sequence = 0": "sequences.sequence is unique",
    "insert into tokens from tokens where token = 0": "tokens.token is unique",
    "insert into forwards from forwards where forward = 0": "forwards.forward is unique",
    WIDE.format("e1 = 7"): "every assignment names an expert of its router",
    WIDE.format("e1 = e0"): "no expert twice in a decision (unless the router repeats them)",
    "insert into routes_2 from routes_2 where token = 0": "one decision per forward, router, iteration and token",
    "insert into assignments_long (run, router, dropped) values (0, 0, false)": "selected experts add up to assignments",
    WIDE.format("h1 = 16256"): "weights fall with rank",
    """update routers set extra = '{"ranks": "unknown"}' where router = 0""": (
        "experts of a decision whose order is not known have no rank, and every other has"
    ),
    "update routers set contract = 'imported'; update runs set capture = '{}'": (
        "runs that were imported say from what, and what they lack"
    ),
    "insert into assignments_long (run, forward, router, iteration, token, expert, weight, dropped) "
    "values (0, 0, 0, 0, 0, 0, 0.5, false), (0, 0, 0, 0, 0, 1, null, false)": (
        "weights of a decision whose order is not known are all there or none is"
    ),
    "update load_rollup set assignments = assignments + 1 where router = 0 and expert = 0": "kept sums equal the rows",
    "update runs set decisions = 7": "counts of runs equal the rows",
    "update tokens set position = 5 where token = 1": "positions of a sequence run from 0 without gaps",
    "insert into pools values (0, 0, 0, 0, 2, 1, null); alter table routes_2 add column pool uinteger; "
    "alter table routes_2 add column p0 uinteger; update routes_2 set pool = 0, p0 = 1 where forward = 0 and router = 0":
        "no more places used than a buffer has",
    WIDE.format("entropy_n = 1.2 * 1024"): "entropy is between 0 and the most its experts allow",
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "run.duckdb"
    handmade.written(path)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path))


def test_a_sound_store(store: Path) -> None:
    with moescope.open(store) as opened:
        checks = verify(opened)
    assert [c for c in checks if c.broken] == []
    assert {c.rule for c in checks} == set(DAMAGE.values()) | {"assignments.router is in routers"}
    assert CliRunner().invoke(main, ["verify", str(store), "-q"]).output == f"{store} is sound: 38 of 38 checks hold\n"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.sampled(10)
def test_planted_damage_is_named(store: Path, damage: str) -> None:
    change_store(store, lambda con: (con.execute(damage), create_views(con)))
    with moescope.open(store) as opened:
        broken = {c.rule for c in verify(opened) if c.broken}
    assert DAMAGE[damage] in broken
    said = CliRunner().invoke(main, ["verify", str(store), "-q"])
    assert said.exit_code == 1
    assert f"broken  {DAMAGE[damage]}: " in said.output
