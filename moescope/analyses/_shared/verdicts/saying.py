"""Numbers, units, intervals, places and q values as verdicts say them: one form for all analyses."""

import re
from typing import Any

import numpy as np
import pandas as pd

from .... import statistics as st

Row = Any  # a row of figures
FDR = 0.05
NOTHING = "it does not show that there is nothing, for more documents can show smaller effects"


def number(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """With three digits, or as many decimals as its interval knows; never -0, never 1e-05."""
    decimals = decimals_of(value, low, high)
    return f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def decimals_of(value: float, low: float = np.nan, high: float = np.nan) -> int:
    """Decimals, at most four: of half the interval one digit, or two where its first is 1 or 2 (as physics rounds errors)."""
    half = abs(float(high) - float(low)) / 2
    if np.isfinite(half) and half > 0:
        place = np.floor(np.log10(half))
        return int(np.clip((half < 3 * 10**place) - place, 0, 4))
    return int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 4)) if np.isfinite(value) and value else 0


def unit_of(name: str) -> str:
    """What a figure's name says in brackets at its end: bits, nats; empty where it says none."""
    found = re.search(r"\((bits|nats)\)", name)
    return found[1] if found else ""


def amount(row: Row, unit: str | None = None) -> str:
    """Value, unit and interval, as in "0.213 bits [0.184, 0.250]"; without an interval why there is none.

    `unit` is %, bits, ...; by default what the figure's name says.
    """
    unit = unit_of(str(row["name"])) if unit is None else unit
    scale = 100 if unit == "%" else 1
    value, low, high = (scale * float(row[c]) if pd.notna(row[c]) else np.nan for c in ("value", "ci_low", "ci_high"))
    said = f"{number(value, low, high)} {unit}".strip()
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"{said} ({no_interval(row)})"
    return f"{said} {interval(value, low, high)}"


def interval(value: float, low: float, high: float) -> str:
    """Both ends, with the decimals of `value`."""
    decimals = decimals_of(value, low, high)
    return f"[{', '.join(f'{round(end, decimals) + 0.0:.{decimals}f}' for end in (low, high))}]"


def no_interval(row: Row) -> str:
    """Why a figure has no interval."""
    units = row["units"]
    if pd.isna(units):
        return "no interval: it is a count, of no sample of documents"
    if units < st.MIN_UNITS:
        return f"no interval: {documents(row)}, and {st.MIN_UNITS} are needed"
    return "no interval: none is defined for it"


def documents(row: Row) -> str:
    """As in "64 documents"."""
    units = row["units"]
    return "documents not counted" if pd.isna(units) else counted(int(units), "document")


def most(rows: pd.DataFrame, unit: str | None = None) -> str:
    """What figures that are no finding stay under: the largest upper end of their intervals, as in "at most 0.020 bits"."""
    unit = unit_of(str(rows["name"].iloc[0])) if unit is None else unit
    scale = 100 if unit == "%" else 1
    ends = rows["ci_high"].dropna()
    if ends.empty:
        top = max(float(rows["value"].max()), 0.0) * scale
        return f"{number(top)} {unit}".strip() + f" at most ({no_interval(rows.iloc[0])})"
    return (
        f"at most {number(max(float(ends.max()), 0.0) * scale)} {unit}".strip() + " (largest upper end of the 95 % intervals)"
    )


def layer(row: Row, frame: pd.DataFrame) -> str:
    """As in "layer 2"; with its stack where the frame has several, and its router where a layer has two."""
    if pd.isna(row["layer"]):
        return f"the {row['stack']} stack" if row["stack"] else "the whole model"
    routers = frame[["stack", "layer", "router"]].dropna().drop_duplicates()
    stack = f"{row['stack']} " if routers["stack"].nunique() > 1 else ""
    mine = (routers["stack"] == row["stack"]) & (routers["layer"] == row["layer"])
    return f"{stack}layer {row['layer']}" + (f" (router {row['router']})" if mine.sum() > 1 else "")


def expert(row: Row, frame: pd.DataFrame) -> str:
    """As in "expert 7 of layer 2"."""
    return f"expert {row['expert']} of {layer(row, frame)}"


def named(row: Row, frame: pd.DataFrame) -> str:
    """The figure's name without its unit, of what, and where."""
    what = re.sub(r" \((bits|nats)\)", "", str(row["name"])) + (f" of {row['subset']}" if row["subset"] else "")
    if pd.isna(row["layer"]) and not row["stack"]:
        return what
    return f"{what} ({expert(row, frame) if pd.notna(row['expert']) else layer(row, frame)})"


def counted(n: int, noun: str) -> str:
    """As in "1 router", "4 routers"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def share_of(found: int, of: int, noun: str) -> str:
    """As in "3 of 4 routers", "the only router", "all 4 routers"."""
    if found == of:
        return f"the only {noun}" if of == 1 else f"both {noun}s" if of == 2 else f"all {of:,} {noun}s"
    return f"{found:,} of {counted(of, noun)}"


def least(row: Row) -> float:
    """The smallest p that its draws allow where they are counted, 1 / (draws + 1); 0 where a fitted tail goes on."""
    found = re.fullmatch(r"count of (\d+) draws", str(row["p_from"]))
    return 1 / (int(found[1]) + 1) if found else 0.0


def chance_of(row: Row, column: str = "q") -> str:
    """p or q of a figure, as in "q = 0.012"; never below what the draws allow ("q < 0.005"), nor below 0.001."""
    value, floor = float(row[column]), max(least(row), 0.001)
    if value <= floor * (1 + 1e-9):
        return f"{column} {'≤' if value >= floor else '<'} {_short(floor)}"
    return f"{column} = {_short(value)}"


def tail_of(row: Row) -> str:
    """How p was had, where a tail was fitted, as in " (Student's t through 99 draws)"."""
    said = str(row["p_from"] or "")
    return "" if not said or re.fullmatch(r"count of \d+ draws", said) else f" ({said})"


def _short(value: float) -> str:
    return np.format_float_positional(float(f"{value:.2g}"), trim="-")


def family(row: Row, frame: pd.DataFrame, noun: str = "") -> str:
    """Over what q is controlled: rows of the figure's name and estimator that have a p, and by how many kinds it is multiplied.

    That number is read off p and q (`statistics.fdr`): kinds that hold the very same p count once, cells of the answer too.
    """
    tested = frame[frame["p"].notna()]
    same = tested[(tested["name"] == row["name"]) & (tested["estimator"] == row["estimator"])]
    routers = same["router"].notna().all() and same["router"].is_unique
    said = f"over {counted(len(same), noun or ('router' if routers else 'figure'))}"
    kinds = _times(same) or _times(same[same["subset"] == row["subset"]]) or 1  # what is of cells' attributes is apart
    return said + (f" and {kinds} kinds of figure" if kinds > 1 else "")


def _times(same: pd.DataFrame) -> int:
    """What q of one family is, in times of what it would be alone; 0 where nothing tells, such as q of 1 throughout."""
    alone, q = st.fdr(same["p"].to_numpy(float)), same["q"].to_numpy(float)
    told = (q > 0) & (q < 1) & (alone > 0)
    times = np.unique(np.round(q[told] / alone[told], 6))
    return int(times[0]) if len(times) == 1 and float(times[0]).is_integer() else 0


def evidence(row: Row, frame: pd.DataFrame, noun: str = "") -> str:
    """Documents, null and q of a figure with the family of q: what stands in the brackets of a verdict."""
    null = str(row["null"] or "")
    if pd.isna(row["p"]):
        why = null.removeprefix("none").lstrip(": ") or "a level, beside its chance"
        return f"{documents(row)}; no null: {why}"
    q = chance_of(row, "q" if pd.notna(row["q"]) else "p")
    return f"{documents(row)}; null: {null}; {q}{tail_of(row)} {family(row, frame, noun)}"
