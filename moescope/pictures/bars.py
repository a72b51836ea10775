"""Rankings: bars as plain HTML, with whiskers and a dashed rule for chance; a browser draws them at once.

Files of the same picture are made by `moescope.charts.bars`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .wording import markup, share


def drawn(
    frame: pd.DataFrame,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    chance: float | None = None,
    title: str | None = None,
    *,
    subtitle: str | None = None,
    format: str = ".3~g",
    chance_label: str = "chance",
    tooltip: Sequence[str] = (),
    links: Sequence[str] = (),
) -> str:
    """HTML of one bar per row, in the order of the frame; values are not negative. `links`: addresses that the rows open."""
    frame = frame.assign(**{x: frame[x].astype(object).where(frame[x].notna(), "–")})
    tops = [frame[c].max() for c in (y, high) if c and frame[c].notna().any()] + [chance or 0.0]
    top = max(float(v) for v in tops) or 1.0
    words = [subtitle or "", "" if chance is None else f"dashed: {chance_label}, {said(chance, format)}"]
    head = f'<div class="head"><b>{markup(title or "")}</b><small>{markup("; ".join(filter(None, words)))}</small></div>'
    records = frame.to_dict("records")
    to = [*links] or [""] * len(records)
    lines = "".join(
        _line(row, x, y, low, high, chance, top, format, tooltip, link) for row, link in zip(records, to, strict=True)
    )
    names = f"--names:{max((len(str(v)) for v in frame[x]), default=1) * 0.55 + 0.6:.1f}rem"
    return f'<div class="ms-bars" role="table" style="{names}" aria-label="{markup(title or "")}">{head}{lines}</div>'


def _line(
    row: dict[Any, Any], x: str, y: str, low: str | None, high: str | None, chance: float | None, top: float, format: str,
    tooltip: Sequence[str], link: str,
) -> str:  # fmt: skip
    marks = f'<i style="width:{_part(row[y], top)}"></i>'
    notes = [f"{c.replace('_', ' ')} {said(row[c], '')}" for c in tooltip if c in row]
    if low and high and not (pd.isna(row[low]) or pd.isna(row[high])):
        marks += f'<u style="left:{_part(row[low], top)};width:{_part(row[high] - row[low], top)}"></u>'
        notes.insert(0, f"95 % {said(row[low], format)} to {said(row[high], format)}")
    if chance is not None:
        marks += f'<s style="left:{_part(chance, top)}"></s>'
    name = markup(row[x], 60)
    if link:
        name = f'<a href="{markup(link)}" target="_self">{name}</a>'
    return (
        f'<div class="row" role="row" title="{markup("; ".join(notes))}"><span role="cell">{name}</span>'
        f'<div class="track">{marks}</div><em role="cell">{said(row[y], format)}</em></div>'
    )


def _part(value: float, top: float) -> str:
    return f"{100 * min(max(0.0 if pd.isna(value) else float(value), 0.0) / top, 1.0):.2f}%"


def said(value: Any, format: str) -> str:
    """A number as the chart's own format says it."""
    if pd.isna(value):
        return "–"
    if format.endswith("%"):
        return share(value)
    if format.endswith("f"):
        return f"{value:{format}}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
