"""What a row of a frame names (a token, an expert, a layer), and where that is seen: one place for tables, bars and charts."""

from typing import Any
from urllib.parse import urlencode

import pandas as pd

from moescope.app.parts import pickers
from moescope.app.queries import store_access
from moescope.app.queries.layers import Layer
from moescope.app.wording import missing

TOKEN = "select token, sequence from tokens where run = ? and sequence = ? and position = ? limit 1"
HOME = "select token, sequence from tokens where run = ? and token = ?"
LOOKED_UP = 200  # tokens, each of which is asked for
Row = dict[str, Any]
Place = tuple[str, dict[str, Any]]


def named(row: Row) -> str:
    """What a row names: token, expert, layer, or nothing."""
    known = {key for key, value in row.items() if not missing(value)}
    if {"sequence", "position"} <= known or "token" in known:
        return "token"
    return "expert" if {"router", "expert"} <= known else "layer" if "router" in known else ""


def opened(run: int, row: Row) -> Place | None:
    """The page on which that is seen, and its state; None where the run has it not."""
    if named(row) != "token":
        return _experts(run, pickers.labels(run), row)
    by_place = missing(row.get("token"))
    at = [row["sequence"], row["position"]] if by_place else [row["token"]]
    found = store_access.rows(TOKEN if by_place else HOME, run, *map(int, at))
    return ("tokens", {"run": run, **found[0]}) if found else None


def _experts(run: int, labels: dict[int, str], row: Row) -> Place | None:
    kind = named(row)
    layer = labels.get(int(row["router"])) if kind else None
    if layer is None:
        return None
    return "experts", {"run": run, "layer": layer, "show": "all"} | (
        {"expert": int(row["expert"]), "show": None} if kind == "expert" else {}
    )


def routed(run: int, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the `router` that a column `layer` (of a `stack`) is of, where it has none and there is one only."""
    if "layer" not in frame or "router" in frame:
        return frame
    columns = [column for column in ("layer", "stack") if column in frame]
    pairs = [*frame[columns].astype(object).where(frame[columns].notna(), None).itertuples(index=False, name=None)]
    known = pickers.layers(run)
    found = {pair: _router(known, *pair) for pair in {*pairs}}
    return frame.assign(router=[found[pair] for pair in pairs])


def _router(known: list[Layer], layer: Any, stack: Any = None) -> int | None:
    of = [x for x in known if not isinstance(stack, str) or stack in (x.group, x.stack)]
    found = [x.router for x in of if layer in (x.label, x.layer)]
    return found[0] if len(found) == 1 else None


def links(run: int | None, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """For each row of the frame the address that it opens and what that is, in words; both empty where it names nothing."""
    if run is None:
        return [("", "")] * len(frame)
    rows = routed(run, frame).to_dict("records")
    labels, few = pickers.labels(run), sum(named(row) == "token" for row in rows) <= LOOKED_UP
    places = [_place(run, labels, row, few) for row in rows]
    return [(address(*place), said(*place)) if place else ("", "") for place in places]


def _place(run: int, labels: dict[int, str], row: Row, few: bool) -> Place | None:
    if named(row) != "token":
        return _experts(run, labels, row)
    return opened(run, row) if few else None


def address(page: str, state: Row) -> str:
    """The page's address with this state."""
    return f"{page}?" + urlencode({key: value for key, value in state.items() if value is not None})


def said(page: str, state: Row) -> str:
    """What is seen there."""
    if page == "tokens":
        return "opens its route"
    return f"opens expert {state['expert']} of {state['layer']}" if "expert" in state else f"opens {state['layer']}"
