"""Rows that lie elsewhere are read by several threads of DuckDB at once, through one open file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from moescope.store.remote.duckdb_files import Files

TEXT = bytes(range(200))


def test_each_thread_reads_at_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_REMOTE", str(tmp_path))
    (tmp_path / "rows").write_bytes(TEXT)
    file, together = Files(skip_instance_cache=True).open(f"moescope://{tmp_path}/rows"), Barrier(4, timeout=30)

    def reads(place: int) -> list[bytes]:
        found = [file.read(2)]  # where it has not been told another place: at the beginning
        for at in (place, place + 100):
            together.wait()
            assert file.seek(at) == at
            together.wait()
            found += [file.read(3), file.read(2)]
            assert file.tell() == at + 5
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(reads, (0, 7, 20, 90)))
    assert found == [
        [TEXT[:2], *(piece for at in (p, p + 100) for piece in (TEXT[at : at + 3], TEXT[at + 3 : at + 5]))]
        for p in (0, 7, 20, 90)
    ]
