"""moe-policylang: record_trace() as JSON lines (a header, then a line for each prompt, token and layer) or as Parquet.

Its decisions are recomputed: top-k of a softmax of the router's logits. That is what a router with a plain softmax executed;
of others (sigmoid, bias, groups) a tenth of its sets were, so those are refused. Scores are divided by their sum where the
model's weights are (norm_topk_prob).
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ..errors import InputError
from ..foreign import one_line
from ..store.schema import quote
from ._core.ask import Ask, Item
from ._core.captured import Captured, Fault
from ._core.model import Model
from ._core.reading import Head, opened
from ._forms.table_source import database
from ._forms.tables import Rows, stacked, stretches

OPTIONS: dict[str, str] = {}
_PARQUET = {"prompt_id": "p", "token_idx": "t", "layer_idx": "l", "selected_experts": "e", "router_scores": "s",
            "token_id": "ti", "phase": "ph", "domain_tag": "dm"}  # fmt: skip
_WHOLE = ("p", "t", "l", "ti", "e")
_JSON = {**dict.fromkeys(("p", "t", "l", "ti"), "DOUBLE"), "ph": "VARCHAR", "dm": "VARCHAR", "e": "DOUBLE[]", "s": "FLOAT[]"}
_BLOCK = 8 << 20  # bytes that a batch is told as


def accepts(head: Head) -> bool:
    """A header with its entries, or a Parquet file with its columns."""
    if head.start[:4] == b"PAR1":
        from pyarrow import parquet

        return {"prompt_id", "token_idx", "layer_idx", "selected_experts"} <= set(parquet.read_schema(head.path).names)
    return "num_entries" in head.first and "num_layers" in head.first


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every prompt of a trace."""
    model = ask.need("a trace of moe-policylang")
    if model.by_weight is not True:
        raise InputError(
            f"{path.name} was recomputed by moe-policylang as the top-k of a softmax, and the routers of {model.name} "
            f"({model.family or 'of no known family'}) are not known to choose so (sigmoid, bias or groups): about a tenth "
            f"of its "
            "decisions would be the executed ones; capture with the engine (say --order weight if the routers are plain "
            "softmax)"
        )
    batches = _parquet(path, ask) if path.suffix == ".parquet" else _json(path, ask)
    ask.notes.say("moe-policylang recomputes decisions and weights from router logits; it does not read what was executed")
    if model.normalized is None:
        ask.notes.say(
            "whether the model divides weights by their sum is not known (norm_topk_prob), so its scores are left out"
        )
    yield from _prompts(path, batches, model, ask)


def _parquet(path: Path, ask: Ask) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        there = [name for name in _PARQUET if name in file.schema_arrow.names]
        size = path.stat().st_size / max(1, file.metadata.num_rows)
        for batch in file.iter_batches(1 << 16, columns=there):
            ask.step(int(size * batch.num_rows))
            yield {_PARQUET[name]: batch[name] for name in there}
    except (pa.ArrowException, OSError) as error:
        raise Fault(f"{path} is no readable Parquet file ({one_line(str(error), 120)}): it was cut, or is none") from error


def _json(path: Path, ask: Ask) -> Iterator[dict[str, Any]]:
    """Lines behind the header, by DuckDB, which reads lists of numbers twice as fast as Arrow does."""
    with opened(path) as file:
        first = file.readline()
    try:
        header = json.loads(first)
        _header(header if isinstance(header, dict) else {}, ask, path)
    except (ValueError, RecursionError) as error:
        raise Fault(f"line 1 of {path.name} is no header of moe-policylang") from error
    kinds = ", ".join(f"{name}: '{kind}'" for name, kind in _JSON.items())
    sql = f"select * from read_json({quote(str(path))}, format = 'newline_delimited', columns = {{{kinds}}}) offset 1"
    with closing(database()) as con:
        try:
            told, size = 0, path.stat().st_size
            for number, batch in enumerate(con.sql(sql).to_arrow_reader(1 << 16)):
                step = min(size - told, _BLOCK if number else len(first))
                ask.step(step)
                told += step
                yield {name: _whole(batch[name], path) if name in _WHOLE else batch[name] for name in _JSON}
            ask.step(size - told)
        except duckdb.Error as error:
            why = one_line(str(error).replace(str(path), path.name), 120)
            raise Fault(f"{path.name} has a line that is no record of moe-policylang ({why}): it was cut") from error


def _whole(column: Any, path: Path) -> Any:
    """Whole numbers, that were read as what they are. Fault for others, which a reader of whole numbers would round."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        kind = pa.list_(pa.int64()) if pa.types.is_list(column.type) else pa.int64()
        return pc.cast(column, kind)
    except pa.ArrowInvalid as error:
        raise Fault(
            f"{path.name} has prompts, tokens, layers or experts that are no whole numbers ({one_line(str(error), 80)})"
        ) from error


def _header(header: dict[str, Any], ask: Ask, path: Path) -> None:
    model = ask.settle(experts=header.get("num_experts"), top_k=header.get("top_k"))
    layers = header.get("num_layers")
    if isinstance(layers, int) and layers not in (len(model.routed), model.layers):
        raise Fault(f"{path.name} says {layers} MoE layers, and {model.name} has {len(model.routed)} routers")


def _prompts(path: Path, batches: Iterator[dict[str, Any]], model: Model, ask: Ask) -> Iterator[Item]:
    held: list[dict[str, Any]] = []
    seen: set[int] = set()
    last: int | None = None
    for batch in batches:
        if batch["p"].null_count:
            yield Fault(f"{path.name} has records without a prompt: the file was cut, or is none of moe-policylang")
            return
        prompts = np.asarray(batch["p"])
        for start, stop in stretches(prompts) if len(prompts) else ():
            own = int(prompts[start])
            if last is not None and own != last:
                yield from _one(path, last, held, seen, model, ask)
                held = []
            last = own
            held.append({name: column.slice(start, stop - start) for name, column in batch.items()})
    if last is not None:
        yield from _one(path, last, held, seen, model, ask)


def _one(path: Path, prompt: int, held: list[dict[str, Any]], seen: set[int], model: Model, ask: Ask) -> Iterator[Item]:
    where = f"prompt {prompt} of {path.name}"
    try:
        if prompt in seen:
            raise Fault(f"{where} comes in several places of the file: sort it by prompt")
        seen.add(prompt)
        yield _captured(path, where, prompt, held, model)
    except Fault as fault:
        yield fault


def _captured(path: Path, where: str, prompt: int, held: list[dict[str, Any]], model: Model) -> Captured:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = {name: pa.concat_arrays([part[name] for part in held]) for name in held[0]}
    if any(table[name].null_count for name in ("p", "t", "l", "e")):
        raise Fault(
            f"{where}: a record without prompt, token, layer or experts: the file was cut, or is none of moe-policylang"
        )
    experts = _lists(table["e"], model.top_k, where)
    scores = (
        _lists(table["s"], model.top_k, where)
        if "s" in table and model.normalized is not None and not table["s"].null_count
        else None
    )
    if scores is not None and model.normalized:
        scores = scores / scores.sum(-1, keepdims=True)
    place = np.asarray(table["t"])
    ids, weights, first = stacked(Rows(place, np.asarray(table["l"]), experts, scores), model.routed, where)
    tokens = np.full(first + len(ids), -1)
    if "ti" in table:
        known = np.asarray(table["ti"].is_valid())
        tokens[place[known]] = np.asarray(table["ti"].drop_null())
    decoded = pc.fill_null(pc.equal(table["ph"], "decode"), False) if "ph" in table else np.zeros(len(place), bool)
    before = place[~np.asarray(decoded)]
    domain = next((d for d in table["dm"].unique().to_pylist() if d), None) if "dm" in table else None
    length = first + len(ids)
    until = int(before.max()) + 1 if len(before) else 0
    labels = {"domain": str(domain)} if domain else {}
    return Captured(where, path.name, prompt, ids, until, length, first, str(prompt), tokens, weights, True, labels=labels)


def _lists(column: Any, k: int, where: str) -> Any:
    sizes = np.diff(np.asarray(column.offsets))
    if (sizes != k).any():
        raise Fault(f"{where}: {int(sizes[sizes != k][0])} experts or scores in a decision, and the model chooses {k}")
    return np.asarray(column.flatten()).reshape(-1, k)
