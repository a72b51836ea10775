"""Families as text: lines for a terminal, a table for the README."""

from collections.abc import Sequence
from importlib.metadata import version

from .families import Family
from .systems import Row

_HEAD = ("family", "router", "contract", "formula", "shared", "dense layers", "proved")


def line(family: Family) -> str:
    """One family for a terminal."""
    if not family.proved:
        return f"NOT     {family.model_type}: {family.reason}"
    note = f"  ({family.reason})" if family.reason else ""
    return f"proved  {family.model_type}: {family.contract}, {family.formula}{note}"


def summary(families: Sequence[Family]) -> str:
    """How many, and which with a remark."""
    proved = [f for f in families if f.proved]
    remarks = [f.model_type for f in proved if f.reason]
    noted = f"; executed otherwise than decided, and recorded as executed: {', '.join(remarks)}" if remarks else ""
    return f"{len(proved)} of {len(families)} families of Transformers {version('transformers')} are proved{noted}"


def as_markdown(families: Sequence[Family]) -> str:
    """The summary and a table; the same on every machine."""
    rows = [_row(f) for f in families]
    table = ["| " + " | ".join(row) + " |" for row in (_HEAD, ("---",) * len(_HEAD), *rows)]
    return "\n".join([summary(families) + ".", "", *table])


def system_line(row: Row) -> str:
    """One routing system for a terminal."""
    if row.proved:
        return f"proved  {row.name}: {', '.join(row.contracts)} ({', '.join(row.proved_by)}); {row.rule}"
    return f"{'-      ' if row.nothing else 'NOT     '}{row.name}: {row.reason}"


def systems_markdown(rows: Sequence[Row]) -> str:
    """The table of systems; the same on every machine that has the packages."""
    lines = [("system", "rule", "contract", "shown on", "proved"), ("---",) * 5]
    lines += [
        (
            row.name,
            row.rule,
            ", ".join(row.contracts) or "–",
            ", ".join(row.proved_by) or "–",
            "**proved**" if row.proved else row.reason,
        )
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(f: Family) -> tuple[str, ...]:
    routers = "<br>".join(f"`{router}`" for router in f.routers)
    dense = "some" if f.dense_layers else "none"
    proved = ("yes" if f.proved else "**no**") + (f": {f.reason}" if f.reason else "")
    return f.model_type, routers, f.contract, f.formula, str(f.shared_experts or "–"), dense, proved
