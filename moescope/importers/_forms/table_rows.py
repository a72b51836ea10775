"""Rows of any table, sorted by DuckDB in bounded memory, to sequences and counts."""

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
from .tables import Rows, stacked, stretches

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
            _counts(con, source, where, roles, ask) if roles.counts else _decisions(con, source, where, roles, kinds, ask)
        )
    except duckdb.Error as error:
        raise Fault(f"{where} cannot be read as a table ({one_line(str(error), 160)})") from error


def _whole(column: str) -> str:
    return f"try_cast({_name(column)} as bigint)"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _counts(con: duckdb.DuckDBPyConnection, source: str, where: str, roles: Mapped, ask: Ask) -> Iterator[Item]:
    named = ", ".join(f"{_name(label)}::varchar" for label in roles.labels)
    columns = f"{_whole(roles.of['layer'])}, {_whole(roles.experts[0])}, {_whole(roles.of['count'])}"
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
    ask.model = Model(ask.name or where, experts, top_k or 1, max(layers) + 1, tuple(layers))
    ask.notes.say(
        f"which model it is was not said: layers, experts ({experts}: the largest number and one) and top-k are those that "
        f"are there"
    )


def _long(source: str, roles: Mapped, kinds: dict[str, str]) -> str:
    """One row an assignment: run, sequence, position, layer, slot, expert, weight, token, piece, generated, labels, at."""
    of = roles.of
    wide = len(roles.experts) > 1
    experts = f"[{', '.join(map(_whole, roles.experts))}]" if wide else _name(roles.experts[0])
    weights = "null"
    if roles.weights:
        weights = f"[{', '.join(f'{_name(w)}::float' for w in roles.weights)}]" if wide else _name(roles.weights[0])
    each = wide or roles.listed
    taken = f'(select *, row_number() over () - 1 as "_at" from {source})'
    sequence = f"{_name(of['sequence'])}::varchar" if "sequence" in of else "''"
    layer = _whole(of["layer"])
    place = (
        _whole(of["position"])
        if "position" in of
        else f'row_number() over (partition by {sequence}, {layer} order by "_at") - 1'
    )
    order = next((_whole(of[name]) for name in ("rank", "slot") if name in of), '"_at"')
    text = "token" in of and kinds[of["token"]] == "VARCHAR"
    columns = [
        f"{_name(of['run'])}::varchar" if "run" in of else "''", sequence, place, layer,
        f"unnest(range(len({experts})))" if each else order,
        f"unnest({experts})" if each else _whole(roles.experts[0]),
        (f"unnest({weights})" if each else f"{weights}::float") if roles.weights else "null::float",
        _whole(of["token"]) if "token" in of and not text else "null::bigint",
        _name(of["token"]) if text else "null::varchar",
        f"try_cast({_name(of['generated'])} as boolean)" if "generated" in of else "false",
        *(f"{_name(label)}::varchar" for label in roles.labels),
    ]  # fmt: skip
    names = ["run", "s", "p", "l", "o", "e", "w", "t", "x", "g", *(f"g{i}" for i in range(len(roles.labels)))]
    return f"(select {', '.join(f'{c} as {n}' for c, n in zip(columns, names))} from {taken})"


def _decisions(
    con: duckdb.DuckDBPyConnection, source: str, where: str, roles: Mapped, kinds: dict[str, str], ask: Ask
) -> Iterator[Item]:
    if "position" not in roles.of and len(roles.experts) == 1 and not roles.listed:
        raise Fault(f"{where} has one row an assignment and no column that is the token's position; say -p position=COLUMN")
    sql = _long(source, roles, kinds)
    bad, layers, most, least, widest, no_weight = con.execute(_summary(sql)).fetchall()[0]
    if bad:
        raise Fault(
            f"{where}: {bad} rows have no whole number (from 0 on) for layer, position, rank or expert, or no sequence; "
            f"correct them"
        )
    if least != widest:
        raise Fault(
            f"{where}: decisions of {least} to {widest} experts; each router's decisions have one number of experts: give "
            f"the missing rows"
        )
    _seen_model(ask, where, layers or [], int(most or 0) + 1, widest)
    assert ask.model is not None
    weighed = bool(roles.weights) and no_weight == 0
    if roles.weights and not weighed:
        ask.notes.count("{n} assignments have no weight, so that none is kept", no_weight)
    by_weight = True if "rank" in roles.of or weighed else ask.model.by_weight
    reader = con.sql(f"select * from {sql} order by run, s, p, l, o").to_arrow_reader(_READ)
    for part in _parts(reader):
        yield from _sequence(part, where, roles, ask.model, widest, weighed, by_weight)


def _summary(sql: str) -> str:
    return (
        f"with r as materialized (from {sql}), n as (select count(*) as n from r group by run, s, p, l) select "
        "count(*) filter (p is null or l is null or e is null or o is null or p < 0 or l < 0 or e < 0 or run is null or s "
        "is null), "
        "list_sort(list(distinct l)), max(e), (select min(n) from n), (select max(n) from n), count(*) filter (w is null) "
        "from r"
    )


def _parts(reader: Any) -> Iterator[dict[str, Any]]:
    """Rows of one sequence each."""
    import pyarrow as pa

    held: list[Any] = []
    last: tuple[Any, Any] | None = None
    for batch in reader:
        if not batch.num_rows:
            continue
        code = np.asarray(pa.compute.binary_join_element_wise(batch["run"], batch["s"], "\x1f").dictionary_encode().indices)
        for start, stop in stretches(code):
            own = batch.slice(start, stop - start)
            name = (own["run"][0].as_py(), own["s"][0].as_py())
            if last is not None and name != last:
                yield _columns(held)
                held = []
            last = name
            held.append(own)
    if held:
        yield _columns(held)


def _columns(held: list[Any]) -> dict[str, Any]:
    import pyarrow as pa

    table = pa.Table.from_batches(held)
    return {name: table[name].combine_chunks() for name in table.column_names}


def _sequence(
    part: dict[str, Any], where: str, roles: Mapped, model: Model, k: int, weighed: bool, by_weight: bool | None
) -> Iterator[Item]:
    name, run = part["s"][0].as_py(), part["run"][0].as_py()
    said = f"sequence {name} of {where}" if name else where
    try:
        one = _captured(part, said, roles, model, k, weighed)
    except Fault as fault:
        yield fault
        return
    one.by_weight, one.run, one.request, one.source = by_weight, run or None, name or None, where
    one.document = f"{where}:{name}" if name else where
    yield one


def _captured(part: dict[str, Any], said: str, roles: Mapped, model: Model, k: int, weighed: bool) -> Captured:
    place, layer = (np.asarray(part[name])[::k] for name in ("p", "l"))
    experts = np.asarray(part["e"]).reshape(-1, k)
    weights = np.asarray(part["w"], np.float32).reshape(-1, k) if weighed else None
    ids, heavy, first = stacked(Rows(place, layer, experts, weights), model.routed, said)
    length = first + len(ids)
    tokens, pieces = _tokens(part, length, said)
    made = np.asarray(part["g"].fill_null(False))
    prompt = int(np.asarray(part["p"])[made].min()) if made.any() else length
    labels: dict[str, str] = {}
    for number, kind in enumerate(roles.labels):
        values = sorted(set(part[f"g{number}"].to_pylist()) - {None})
        if len(values) > 1:
            raise Fault(f"{said}: its {kind} is {values[0]!r} and {values[1]!r}; labels are of whole sequences here")
        labels |= {kind: values[0]} if values else {}
    one = Captured(said, said, 0, ids, prompt, length, first, tokens=tokens, weights=heavy, labels=labels)
    one.pieces, one.named = pieces, "position" in roles.of
    return one


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
