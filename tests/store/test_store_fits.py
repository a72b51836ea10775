"""What is asked for fits the columns that it will go into, and that is seen before anything is computed for it."""

from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest
from click.testing import CliRunner

from moescope.cli import main
from moescope.errors import InputError
from moescope.store import RunWriter

MISFITS: dict[str, Any] = {
    "seed": (-1, 2**64, "x", 1.5), "name": ("a\0b", "\udcff"), "started": ("yesterday",), "tokens": (-5, 2**64),
    "run": (-1, 2**32),
}  # fmt: skip


@pytest.mark.parametrize(("column", "value"), [(c, v) for c, values in MISFITS.items() for v in values])
def test_what_fits_no_column_is_refused_before_a_run_begins(tmp_path: Path, column: str, value: Any) -> None:
    if column == "run":
        changed = {**handmade.HEAD, "experts": [{"router": value, "expert": 0, "role": "routed"}]}
    else:
        changed = {**handmade.HEAD, "run": {**handmade.HEAD["run"], column: value}}
    with pytest.raises(InputError, match=r"fit|whole number"):
        RunWriter.create(tmp_path / "run.duckdb", changed)
    assert list(tmp_path.iterdir()) == []


ROWS = {
    "vocab_id": np.array([5, -6]), "position": np.array([0, 2**40]), "unit": np.array([1, 2]), "special": ["maybe", "yes"],
    "colour": np.array([1, 2]), "sequence": np.array([0.5, 1.5]),
}  # fmt: skip


@pytest.mark.parametrize("column", [c for c in ROWS if c != "unit"])
def test_rows_that_fit_no_column_are_refused_when_they_are_committed(tmp_path: Path, column: str) -> None:
    store = tmp_path / "run.duckdb"
    writer = handmade.written(store, batches=1, close=False)
    writer.add("tokens", {"token": np.array([2, 3]), column: ROWS[column]})
    with pytest.raises(InputError, match=rf"tokens(\.{column}| has no column {column})"):
        writer.commit({})
    assert [p.name for p in writer.part.path.iterdir() if "shard" in p.name] == ["shard-000000"]


OPTIONS = [
    ("--seed", "-1"), ("--seed", str(2**64)), ("--batch-size", str(2**33)), ("--limit", str(2**33)), ("--name", "a\0b"),
    ("--max-length", str(2**33)), ("--generate", str(2**33)), ("--max-tokens", str(2**65)), ("--store", "/dev/null"),
    ("--store", "."), ("--store", "nowhere/run.duckdb"), ("--store", "x" * 300),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_every_option_is_checked_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    def loading(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moescope.models.loading.load", loading)
    asked = {"--data": "text", "--store": "run.duckdb", option: value}
    done = CliRunner().invoke(main, ["trace", "mixtral", *(word for pair in asked.items() for word in pair)])
    assert done.exit_code in (1, 2)
    assert done.stderr.startswith("moescope: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
