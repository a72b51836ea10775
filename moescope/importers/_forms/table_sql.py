"""SQL for the rows of a table: what each column is, cells that are none of what they should be, and what there is in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .table_columns import Mapped

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")


def name_of(column: str) -> str:
    """As SQL names a column."""
    return '"' + column.replace('"', '""') + '"'


def whole(value: str, kind: str) -> str:
    """SQL for a whole number, null for anything else: a cast alone would round 2.5 and take true for 1."""
    if kind.lstrip("U") in _INTEGERS:
        return f"try_cast({value} as bigint)"
    if kind == "BOOLEAN":
        return "null::bigint"
    number = f"try_cast({value} as double)"
    return f"case when {number} = floor({number}) and abs({number}) < 9e15 then {number}::bigint end"


def _none(value: str, kind: str) -> str:
    """SQL for whether a cell is empty: frames have NaN for that."""
    return f"({value} is null or isnan({value}))" if kind in ("DOUBLE", "FLOAT") else f"({value} is null)"


@dataclass(frozen=True)
class Query:
    """`sql`: rows (run, s, p, l, e, w, t, x, g, g0, ...) in the order of the file, with `o` of assignments, and `bad`: whether
    a cell is none of what it should be. `each`: a row is a decision, `e` and `w` are lists; else it is an assignment."""

    sql: str
    each: bool

    def summary(self) -> str:
        """One row: bad rows, layers, largest expert, fewest and most experts of a decision, assignments without weight."""
        bad = "count(*) filter (bad or p is null or l is null or p < 0 or l < 0 or run is null or s is null or {})"
        layers = "list_sort(list(distinct l))"
        if self.each:
            wrong = bad.format("e is null or coalesce(list_min(e), 0) < 0 or (w is not null and len(w) <> len(e))")
            n = "list_aggregate(e, 'count')"
            less = f"sum({n} - coalesce(list_aggregate(w, 'count'), 0))"
            return f"select {wrong}, {layers}, max(list_max(e)), min({n}), max({n}), {less} from {self.sql}"
        wrong = bad.format("e is null or o is null or e < 0")
        rows = f"select {wrong}, {layers}, max(e), count(*) filter (w is null) from {self.sql}"
        sizes = f"select count(*) as n from {self.sql} group by hash(run, s, p, l)"
        return (
            f"with r(bad, layers, most, less) as ({rows}), n(least, widest) as (select min(n), max(n) from ({sizes})) "
            "select bad, layers, most, least, widest, less from r, n"
        )

    def together(self) -> str:
        """One truth value: whether the rows of every sequence are side by side."""
        marked = f"select hash(run, s) as h from {self.sql}"
        begun = f"select h, h is distinct from lag(h) over () as begins from ({marked})"
        return f"select count(*) filter (begins) = count(distinct h) from ({begun})"


def query(source: str, roles: Mapped, kinds: Mapping[str, str]) -> Query:
    """What to ask of a table whose columns are of these kinds."""
    of, each = roles.of, len(roles.experts) > 1 or roles.listed
    order = next((of[name] for name in ("rank", "slot") if name in of), None)
    text = "token" in of and kinds[of["token"]] == "VARCHAR"
    sequence = f"{name_of(of['sequence'])}::varchar" if "sequence" in of else "''"
    layer = whole(name_of(of["layer"]), kinds[of["layer"]])
    columns = {
        "run": f"{name_of(of['run'])}::varchar" if "run" in of else "''", "s": sequence, "l": layer,
        "p": whole(name_of(of["position"]), kinds[of["position"]]) if "position" in of
        else f'row_number() over (partition by {sequence}, {layer} order by "_at") - 1',
        "t": whole(name_of(of["token"]), kinds[of["token"]]) if "token" in of and not text else "null::bigint",
        "x": name_of(of["token"]) if text else "null::varchar",
        "g": f"try_cast({name_of(of['generated'])} as boolean)" if "generated" in of else "false",
        **{f"g{i}": f"{name_of(label)}::varchar" for i, label in enumerate(roles.labels)},
    }  # fmt: skip
    if each:
        columns |= _lists(roles.experts, roles.weights, kinds)
    else:
        weight = f"{name_of(roles.weights[0])}::float" if roles.weights else "null::float"
        columns |= {"e": whole(name_of(roles.experts[0]), kinds[roles.experts[0]]), "w": weight, "bad": "false"}
        columns["o"] = whole(name_of(order), kinds[order]) if order is not None else '"_at"'
    numbered = "position" not in of or (not each and order is None)
    taken = f'(select *, row_number() over () as "_at" from {source})' if numbered else source
    return Query(f"(select {', '.join(f'{sql} as {name}' for name, sql in columns.items())} from {taken})", each)


def _lists(experts: Sequence[str], weights: Sequence[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """A decision's experts and weights as lists, null where a place is empty."""
    if len(experts) == 1:
        own, kind = name_of(experts[0]), kinds[experts[0]].removesuffix("[]")
        plain = kind.lstrip("U") in _INTEGERS
        found = {"e": f"try_cast({own} as bigint[])" if plain else f"list_transform({own}, x -> {whole('x', kind)})"}
        odd = f"not {_none('x', kind)} and {whole('x', kind)} is null"
        found["bad"] = "false" if plain else f"coalesce(len(list_filter({own}, x -> {odd})), 0) > 0"
        return found | {"w": f"try_cast({name_of(weights[0])} as float[])" if weights else "null::float[]"}
    cells = [(name_of(column), kinds[column]) for column in experts]
    odd = " or ".join(f"(not {_none(own, kind)} and {whole(own, kind)} is null)" for own, kind in cells)
    heavy = ", ".join(
        f"case when not {_none(name_of(column), kinds[column])} then {name_of(column)}::float end" for column in weights
    )
    return {
        "e": f"[{', '.join(whole(own, kind) for own, kind in cells)}]", "bad": odd,
        "w": f"[{heavy}]" if weights else "null::float[]",
    }  # fmt: skip
