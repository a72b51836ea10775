"""Marks of a chart as links: a copy of the chart in which a click opens what each row names."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ._drawn import drawn

ADDRESS, CLICK = "address", "click"  # columns of the copy
NOTHING = "opens nothing"  # a mark among others that open something: its tip has the same lines
MARKS = ("arc", "bar", "circle", "point", "rect", "square")
PARTS = ("layer", "hconcat", "vconcat", "concat")


def linked(chart: Any, links: Sequence[tuple[str, str]]) -> Any:
    """The chart with `links`, (address, what it opens in words) of each row of the frame that it draws; "" opens nothing.

    A line's points get the links, within a finger's width, and the line none: it is of many rows. Files want the chart itself.
    """
    frame = drawn(chart)
    if not any(address for address, _ in links):
        return chart
    made = chart.copy(deep=True)
    told = frame.assign(**{ADDRESS: [address for address, _ in links], CLICK: [words or NOTHING for _, words in links]})
    _put(made, frame, told, alt.Undefined)
    known = made.usermeta if isinstance(getattr(made, "usermeta", None), dict) else {}
    made.usermeta = known | {"embedOptions": known.get("embedOptions", {}) | {"loader": {"target": "_self"}}}
    return made


def unlinked(spec: Any) -> Any:
    """A written chart as it was before: where it is a picture, its links lead nowhere."""
    if isinstance(spec, list):
        return [unlinked(one) for one in spec if not _unseen(one)]
    return {key: unlinked(value) for key, value in spec.items() if key != "href"} if isinstance(spec, dict) else spec


def _unseen(part: Any) -> bool:
    mark = part.get("mark") if isinstance(part, dict) else None
    return isinstance(mark, dict) and mark.get("opacity") == 0 and "href" in part.get("encoding", {})


def _put(part: Any, old: pd.DataFrame, new: pd.DataFrame, above: Any) -> None:
    """Links below a part whose surroundings draw `above`."""
    if getattr(part, "data", alt.Undefined) is old:
        part.data = new
    own = above if getattr(part, "data", alt.Undefined) is alt.Undefined else part.data
    for name in PARTS:
        if isinstance(below := getattr(part, name, alt.Undefined), list):
            for sub in below:
                _put(sub, old, new, own)
            if name == "layer":
                part.layer = [*below, *(_spots(sub) for sub in below if _draws(sub, new, own) and _dotted(sub.mark))]
    if (spec := getattr(part, "spec", alt.Undefined)) is not alt.Undefined:
        _put(spec, old, new, own)
    if _draws(part, new, above) and _kind(part.mark) in MARKS:
        part.encoding.href = alt.Href(field=ADDRESS, type="nominal")
        _tell(part.encoding)


def _draws(part: Any, frame: pd.DataFrame, above: Any) -> bool:
    own = getattr(part, "data", alt.Undefined)
    return getattr(part, "mark", alt.Undefined) is not alt.Undefined and (above if own is alt.Undefined else own) is frame


def _kind(mark: Any) -> str:
    return mark if isinstance(mark, str) else str(mark.type)


def _dotted(mark: Any) -> bool:
    return _kind(mark) == "line" and getattr(mark, "point", alt.Undefined) not in (alt.Undefined, None, False)


def _spots(line: Any) -> Any:
    """Where the points of a line are, seen by none: what is clicked."""
    spots = line.copy(deep=True)
    spots.mark = alt.MarkDef(type="circle", size=160, opacity=0, aria=False)
    spots.encoding = alt.FacetedEncoding(
        x=line.encoding.x, y=line.encoding.y, tooltip=line.encoding.tooltip, href=alt.Href(field=ADDRESS, type="nominal")
    )
    _tell(spots.encoding)
    return spots


def _tell(encoding: Any) -> None:
    """The tip's last line says what a click opens."""
    if isinstance(encoding.tooltip, list):
        encoding.tooltip = [*encoding.tooltip, alt.Tooltip(field=CLICK, type="nominal", title=CLICK)]
