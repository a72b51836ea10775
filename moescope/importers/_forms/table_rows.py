"""Rows of any table, sequence by sequence (sorted by DuckDB in bounded memory where they are not), to sequences and counts."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ...errors import InputError
from ...foreign import one_line
from .._core.ask import Ask, Item
from .._core.captured import Array, Captured, Counts, Fault
from .._core.model import Model
from .table_columns import Mapped, mapped
from .table_source import database, source_of
from .table_sql import name_of, query, whole
from .tables import assigned, listed, stacked

_READ = 1 << 18  # rows


def of_table(path: Path, ask: Ask) -> Iterator[Item]:
    """A table in a file."""
    with closing(database()) as con:
        source = source_of(con, path)
        yield from _read(con, source, path.name, ask)
        ask.step(path.stat().st_size)


def of_frame(frame: Any, ask: Ask) -> Iterator[Item]:
    """A table in memory. InputError for what is none."""
    import pyarrow as pa

    with closing(database()) as con:
        try:
            con.register("given", pa.table(frame) if isinstance(frame, dict) else frame)
        except (duckdb.Error, pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(
                f"a {type(frame).__name__} is no table ({one_line(str(error), 120)}): give a pandas frame, an Arrow table "
                f"or a dict "
                "of equally long columns"
            ) from error
        yield from _read(con, "given", "the frame", ask)


def _read(con: duckdb.DuckDBPyConnection, source: str, where: str, ask: Ask) -> Iterator[Item]:
    try:
        described = con.execute(f"describe select * from {source}").fetchall()
        kinds = {name: kind for name, kind, *_ in described}
        roles = mapped(list(kinds), ask.options, where)
        roles.listed = kinds[roles.experts[0]].endswith("]")
        yield from (
            _counts(con, source, where, roles, kinds, ask)
            if roles.counts
            else _decisions(con, source, where, roles, kinds, ask)
        )
    except duckdb.Error as error:
        raise Fault(f"{where} cannot be read as a table ({one_line(str(error), 160)})") from error


def _counts(
    con: duckdb.DuckDBPyConnection, source: str, where: str, roles: Mapped, kinds: dict[str, str], ask: Ask
) -> Iterator[Item]:
    named = ", ".join(f"{name_of(label)}::varchar" for label in roles.labels)
    numbers = (roles.of["layer"], roles.experts[0], roles.of["count"])
    columns = ", ".join(whole(name_of(column), kinds[column]) for column in numbers)
    bad = con.execute(
        f"select count(*) from (select {columns} from {source}) t(l, e, n) where l is null or e is null or n is null or n < 0 "
        "or l < 0 or e < 0"
    ).fetchall()[0][0]
    if bad:
        raise Fault(
            f"{where}: {bad} rows have no whole number for layer, expert or count (from 0 on); correct them or say other "
            f"columns"
        )
    groups = "".join(f", g{i}" for i in range(len(roles.labels)))
    sql = f"select l, e, sum(n)::bigint{groups} from (select {columns}{', ' + named if named else ''} from {source}) "
    sql += f"t(l, e, n{groups}) group by all order by all"
    rows = con.execute(sql).fetchall()
    layers = sorted({row[0] for row in rows})
    _seen_model(ask, where, layers, max((row[1] for row in rows), default=0) + 1, None)
    assert ask.model is not None
    ask.model = replace(ask.model, routed=tuple(layer for layer in layers if layer in ask.model.routed) or ask.model.routed)
    parts: dict[tuple[Any, ...], list[tuple[int, int, int]]] = {}
    for row in rows:
        parts.setdefault(tuple(row[3:]), []).append(row[:3])
    for labels, own in parts.items():
        layer, expert, n = (np.array(values) for values in zip(*own))
        yield Counts(
            where, layer, expert, n, {kind: str(value) for kind, value in zip(roles.labels, labels) if value is not None}
        )


def _seen_model(ask: Ask, where: str, layers: list[int], experts: int, top_k: int | None) -> None:
    if ask.model is not None:
        return
    if not layers:
        raise Fault(f"{where} has no row")
    if experts < 1 or top_k == 0:
        raise Fault(f"{where} names no expert")
    ask.model = Model(ask.name or where, experts, top_k or 1, max(layers) + 1, tuple(layers))
    ask.notes.say(
        f"which model it is was not said: layers, experts ({experts}: the largest number and one) and top-k are those that "
        f"are there"
    )


def _decisions(
    con: duckdb.DuckDBPyConnection, source: str, where: str, roles: Mapped, kinds: dict[str, str], ask: Ask
) -> Iterator[Item]:
    if "position" not in roles.of and len(roles.experts) == 1 and not roles.listed:
        raise Fault(f"{where} has one row an assignment and no column that is the token's position; say -p position=COLUMN")
    asked = query(source, roles, kinds)
    bad, layers, most, least, widest, no_weight = con.execute(asked.summary()).fetchall()[0]
    if bad:
        raise Fault(
            f"{where}: {bad:,} rows have no whole number (from 0 on) for layer, position, rank or expert, other numbers of "
            "weights than experts, or no sequence; correct them"
        )
    _seen_model(ask, where, layers or [], -1 if most is None else int(most) + 1, widest)
    assert ask.model is not None
    if least != widest:
        ask.notes.say(
            f"decisions have {least} to {widest} experts: places that are left are null, and routers.top_k is null; if rows "
            "were lost, this is wrong"
        )
        ask.model = replace(ask.model, varies=True)
    weighed = bool(roles.weights) and no_weight == 0
    if roles.weights and not weighed:
        ask.notes.count("{n} assignments have no weight, so that none is kept", no_weight)
    by_weight = True if "rank" in roles.of or weighed else ask.model.by_weight
    sorted_ = con.execute(asked.together()).fetchall()[0][0]
    reader = con.sql(f"select * from {asked.sql}{'' if sorted_ else ' order by run, s'}").to_arrow_reader(_READ)
    for part in _parts(reader):
        yield from _sequence(part, where, roles, ask.model, weighed, by_weight)


def _parts(reader: Any) -> Iterator[dict[str, Any]]:
    """Rows of one sequence each."""
    held: list[Any] = []
    last: tuple[Any, Any] | None = None
    for batch in reader:
        for start, stop in _alike(batch["run"], batch["s"]):
            own = batch.slice(start, stop - start)
            name = (own["run"][0].as_py(), own["s"][0].as_py())
            if last is not None and name != last:
                yield _columns(held)
                held = []
            last = name
            held.append(own)
    if held:
        yield _columns(held)


def _alike(*columns: Any) -> Iterator[tuple[int, int]]:
    """Stretches of rows in which each of these columns stays the same."""
    import pyarrow.compute as pc

    ends = [np.asarray(pc.run_end_encode(column).run_ends) for column in columns if len(column)]
    stops = np.unique(np.concatenate(ends)).tolist() if ends else []
    yield from zip([0, *stops[:-1]], stops)


def _columns(held: list[Any]) -> dict[str, Any]:
    import pyarrow as pa

    table = pa.Table.from_batches(held)
    return {name: table[name].combine_chunks() for name in table.column_names}


def _sequence(
    part: dict[str, Any], where: str, roles: Mapped, model: Model, weighed: bool, by_weight: bool | None
) -> Iterator[Item]:
    name, run = part["s"][0].as_py(), part["run"][0].as_py()
    said = f"sequence {name} of {where}" if name else where
    try:
        one = _captured(part, said, roles, model, weighed)
    except Fault as fault:
        yield fault
        return
    one.by_weight, one.run, one.request, one.source = by_weight, run or None, name or None, where
    one.document = f"{where}:{name}" if name else where
    yield one


def _captured(part: dict[str, Any], said: str, roles: Mapped, model: Model, weighed: bool) -> Captured:
    long, ranks = "o" in part, "rank" in roles.of
    rows = assigned(part, said, model, weighed, ranks or not weighed) if long else listed(part, said, model, weighed)
    if ranks and rows.weights is not None and long:
        _ranks_fit(rows.experts, rows.weights, said)
    ids, heavy, first = stacked(rows, model.routed, said)
    length = first + len(ids)
    tokens, pieces = _tokens(part, length, said)
    made = np.asarray(part["g"].fill_null(False))
    prompt = int(np.asarray(part["p"])[made].min()) if made.any() else length
    labels: dict[str, str] = {}
    for number, kind in enumerate(roles.labels):
        values = sorted(set(part[f"g{number}"].unique().to_pylist()) - {None})
        if len(values) > 1:
            raise Fault(f"{said}: its {kind} is {values[0]!r} and {values[1]!r}; labels are of whole sequences here")
        labels |= {kind: values[0]} if values else {}
    one = Captured(said, said, 0, ids, prompt, length, first, tokens=tokens, weights=heavy, labels=labels, varies=model.varies)
    one.pieces, one.named = pieces, "position" in roles.of
    return one


def _ranks_fit(experts: Array, weights: Array, said: str) -> None:
    """Fault where a table's ranks are not those of its weights."""
    wrong = (np.diff(np.where(experts < 0, -np.inf, weights), axis=-1) > 1e-6).any(-1)
    if wrong.any():
        raise Fault(
            f"{said}: rank says another order than weight in {int(wrong.sum()):,} decisions (rank 0 is the largest weight); if "
            "it is the router's own order, say -p slot=COLUMN and leave rank out"
        )


def _tokens(part: dict[str, Any], length: int, said: str) -> tuple[Array | None, list[str] | None]:
    place = np.asarray(part["p"])
    known = np.asarray(part["t"].is_valid())
    if known.any():
        tokens = np.full(length, -1)
        own = np.asarray(part["t"].drop_null())
        if own.min() < 0 or own.max() >= 2**32:
            raise Fault(f"{said}: vocabulary id {own.min() if own.min() < 0 else own.max()} is none")
        tokens[place[known]] = own
        return tokens, None
    if part["x"].null_count != len(part["x"]):
        pieces = [""] * length
        for at, text in zip(place.tolist(), part["x"].to_pylist()):
            pieces[at] = text or ""
        return None, pieces
    return None, None
