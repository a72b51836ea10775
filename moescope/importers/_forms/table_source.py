"""Where the rows of a table come from: a file of any kind, or arrays, as something DuckDB reads."""

from pathlib import Path

import duckdb

from ...errors import InputError
from ...foreign import one_line
from ...memory import room
from ...store.schema import quote
from .._core.archive import Archive


def database() -> duckdb.DuckDBPyConnection:
    """One in memory that spills to the disk, with one thread."""
    con = duckdb.connect()
    con.execute(f"set memory_limit = '{min(room(), 2 << 30) >> 20} MB'")
    con.execute("set threads = 1")
    return con


def source_of(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """SQL for what a file holds. InputError where it is of none of the kinds."""
    name, place = path.name.lower().removesuffix(".gz"), quote(str(path))
    if name.endswith(".npz"):
        return _arrays(con, path)
    if name.endswith((".arrow", ".feather")):
        import pyarrow as pa
        from pyarrow import feather

        try:
            con.register("given", feather.read_table(path, memory_map=True))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is no Arrow file ({one_line(str(error), 120)})") from error
        return "given"
    if name.endswith(".parquet"):
        return f"read_parquet({place})"
    if name.endswith((".csv", ".tsv")):
        return f"read_csv({place}, header = true, sample_size = 20480{', delim = chr(9)' if name.endswith('.tsv') else ''})"
    return f"read_json({place}, sample_size = 20480)"


def _arrays(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Equally long arrays of an archive as columns; those with two axes as lists."""
    import pyarrow as pa

    archive = Archive(path)
    columns = {name: archive.read(name) for name in archive.names}
    long = {name: own for name, own in columns.items() if own.ndim in (1, 2) and own.dtype.kind in "iufbU"}
    if len({len(own) for own in long.values()}) != 1:
        raise InputError(
            f"{path} holds no equally long arrays: {', '.join(f'{n} {a.shape}' for n, a in columns.items())[:300]}"
        )
    con.register("given", pa.table({name: pa.array(own if own.ndim == 1 else list(own)) for name, own in long.items()}))
    return "given"
