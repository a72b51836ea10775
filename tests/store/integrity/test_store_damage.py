"""Every flipped bit of a store is found, and what can still be read is said."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import handmade
import pytest
from click.testing import CliRunner, Result

import moescope
from moescope.cli import main
from moescope.store.files.seal import SIZE, unseal
from moescope.store.integrity.damage import examine
from moescope.store.write.unfinished_run import unfinished_runs

FLIPS = int(os.environ.get("MOESCOPE_FLIPS", "20"))
BLOCK, HEADERS = 262_144, 3 * 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "run.duckdb"
    for name in ("first", "second"):
        handmade.written(path, name=name)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path))


def flip(path: Path, byte: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))


def verified(store: Path) -> Result:
    return CliRunner().invoke(main, ["verify", str(store), "-q"])


def damaged(store: Path) -> str:
    """The last line of what is said, which must say so in the end."""
    said = verified(store)
    assert said.exit_code == 1, said.output
    assert not said.stderr
    last = said.output.splitlines()[-1]
    assert last.startswith(f"{store} is damaged: ")
    return last.removeprefix(f"{store} is damaged: ")


@pytest.mark.parametrize("seed", range(FLIPS))
def test_any_flipped_bit_is_found(store: Path, seed: int) -> None:
    chance = random.Random(seed)
    flip(store, chance.randrange(store.stat().st_size), chance.randrange(8))
    assert re.search("can still be read|the other [0-9]+ tables can|nothing of it can be read", damaged(store))


def used(store: Path) -> list[int]:
    """Numbers of the blocks that some table has rows in."""
    with duckdb.connect(str(store), read_only=True) as con:
        tables = [n for (n,) in con.execute("select table_name from duckdb_tables()").fetchall()]
        found = {
            block
            for name in tables
            for (block,) in con.execute(f"select block_id from pragma_storage_info('{name}') where persistent").fetchall()
        }
    return sorted(block for block in found if block >= 0)


def test_a_bit_in_a_block_of_a_table_is_found_without_the_seal_and_names_the_table(store: Path) -> None:
    """DuckDB's own checksums: blocks in use, in a store that has no seal; other tables are still read."""
    unseal(store)
    blocks = used(store)
    assert blocks
    original = store.read_bytes()
    for block in blocks:
        flip(store, HEADERS + block * BLOCK + 8 + random.Random(block).randrange(BLOCK - 8), 3)
        found = examine(store)
        assert found.unreadable, block
        assert found.readable or found.faults
        assert all("checksum" in why for why in found.unreadable.values())
        damaged(store)
        store.write_bytes(original)


@pytest.mark.parametrize("page", range(3))
@pytest.mark.parametrize("field", range(0, 48, 8))
@pytest.mark.sampled(6)
def test_a_bit_in_a_header_is_found(store: Path, page: int, field: int) -> None:
    for bit in (0, 7):
        flip(store, 4096 * page + field + 7 * (bit == 7), bit)
        assert damaged(store)
        flip(store, 4096 * page + field + 7 * (bit == 7), bit)
    assert verified(store).exit_code == 0


@pytest.mark.parametrize("byte", range(0, SIZE, 7))
def test_a_bit_in_the_seal_is_found(store: Path, byte: int) -> None:
    flip(store, store.stat().st_size - SIZE + byte, 1)
    assert "tables can still be read, for it lies where none of them is" in damaged(store)


HARM: dict[str, Callable[[Path], object]] = {
    "a byte less": lambda path: os.truncate(path, path.stat().st_size - 1),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "its beginning": lambda path: os.truncate(path, 5000),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros at its beginning": lambda path: path.write_bytes(bytes(4096) + path.read_bytes()[4096:]),
    "other bytes in the middle": lambda path: path.write_bytes(
        (content := path.read_bytes())[: len(content) // 3] + b"\xff" * 9999 + content[len(content) // 3 + 9999 :]
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_other_harm_is_found(store: Path, harm: str) -> None:
    HARM[harm](store)
    said = verified(store)
    assert said.exit_code == 1
    assert "damaged" in said.output + said.stderr
    assert "Traceback" not in said.output


def test_what_another_program_wrote_is_no_damage(store: Path) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute("update runs set name = 'renamed'")
    said = CliRunner().invoke(main, ["verify", str(store)])
    assert said.exit_code == 0, said.output
    assert re.search("note    (another program wrote into the file since|without a checksum of the whole file)", said.output)
    handmade.written(store, name="third")
    assert "note" not in CliRunner().invoke(main, ["verify", str(store)]).output


def test_a_store_of_before_there_was_a_seal(store: Path) -> None:
    unseal(store)
    assert (store.stat().st_size - HEADERS) % BLOCK == 0
    said = CliRunner().invoke(main, ["verify", str(store)])
    assert (said.exit_code, "note    without a checksum of the whole file" in said.output) == (0, True)


def test_plain_duckdb_reads_and_writes_a_sealed_file(store: Path) -> None:
    with duckdb.connect(str(store)) as con:
        con.execute("create table more as select range as x from range(3000000)")
        con.execute("checkpoint")
    with duckdb.connect(str(store), read_only=True) as con:
        assert con.execute("select count(*), (select count(*) from runs) from more").fetchall() == [(3_000_000, 2)]
    with moescope.open(store) as opened:
        assert opened.rows("select count(*) from runs") == [(2,)]


def test_other_commands_say_so_in_a_sentence(store: Path) -> None:
    flip(store, 4096 + 16, 0)
    for line in (["info", str(store)], ["sql", str(store), "from runs"]):
        said = CliRunner().invoke(main, line)
        assert (said.exit_code, said.stderr.count("\n")) == (1, 1)
        assert f"{store} is damaged" in said.stderr
        assert "another program" not in said.stderr


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.sampled(4)
def test_a_flipped_bit_in_a_shard_of_an_unfinished_run_is_found(tmp_path: Path, seed: int) -> None:
    store, chance = tmp_path / "run.duckdb", random.Random(seed)
    handmade.written(store, close=False).release()
    assert verified(store).exit_code == 0
    files = sorted(unfinished_runs(store)[0].path.rglob("*.parquet"))
    file = chance.choice(files)
    flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))
    said = verified(store)
    assert said.exit_code == 1
    assert f"{file.name} is not as it was written" in said.output
