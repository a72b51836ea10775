"""Documents of a run: what a sequence belongs to, and what intervals are over."""

from .schema import quote

DOCUMENT = "coalesce(document, source || ' ' || source_row, 'sequence ' || sequence)"


def units_sql(run: int, kind: str | None = None, groups: int | None = None) -> str:
    """SQL with one row per sequence: sequence, unit (documents from 0), label (of the sequence label `kind`, or '').

    Documents never share a unit with those of another label; a document with two labels is two units. `groups`: dealt by hash
    into so many.
    """
    label = "''" if kind is None else "l.label"
    source = f"sequences s where run = {run}"
    if kind is not None:
        labels = f"sequence_labels l on l.sequence = s.sequence and l.kind = {quote(kind)}"
        source = f"sequences s join {labels} where run = {run}"
    document = DOCUMENT.replace("|| sequence", "|| s.sequence")
    document = f"hash({document}) % {groups}" if groups is not None else document
    unit = f"(dense_rank() over (order by {label}, {document}) - 1)::int"
    return f"select s.sequence, {label} as label, {unit} as unit from {source}"
