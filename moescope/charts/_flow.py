"""From experts of one layer to experts of the next: ribbons as wide as the number of tokens."""

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd

from ._encode import field, titled, tooltips
from ._palette import CATEGORY

_STEPS = np.linspace(0, 1, 9)  # joined by monotone curves
_CURVE = _STEPS**2 * (3 - 2 * _STEPS)
_GAP, _NODE = 0.015, 0.04  # share of the height between nodes; half a node's width in layers


def flow(
    frame: pd.DataFrame,
    layer: str = "layer",
    expert: str = "expert",
    next_layer: str = "next_layer",
    next_expert: str = "next_expert",
    n: str = "n",
    title: str | None = None,
    *,
    subtitle: str | None = None,
    focus: tuple[int, int] | None = None,
    names: Mapping[int, str] | None = None,
) -> alt.LayerChart:
    """Ribbons between neighbouring layers, one row per (layer, expert, next_layer, next_expert) with its number of tokens `n`.

    Each column of nodes is one layer and has the same height; a node's height is its share of the column's tokens.
    `focus` = (layer, expert) lights the ribbons that touch this expert, and fades the rest. `names` say what stands above a
    layer, where its number alone does not ("layer 3").
    """
    nodes, links, places = ribbons(frame, layer, expert, next_layer, next_expert, n)
    chart = alt.layer(_ribbons(_curves(links, places), focus), *_marks(nodes, places, names or {}))
    return titled(chart.properties(width=max(110 * len(places), 320), height=420), title, subtitle)


def ribbons(
    frame: pd.DataFrame,
    layer: str = "layer",
    expert: str = "expert",
    next_layer: str = "next_layer",
    next_expert: str = "next_expert",
    n: str = "n",
) -> tuple[pd.DataFrame, pd.DataFrame, dict[int, int]]:
    """Where nodes and ribbons lie: nodes with bottom and top, links with both ends' edges, {layer: its column}.

    Heights are shares of the picture's.
    """
    links = frame[[layer, expert, next_layer, next_expert, n]].set_axis(
        ["layer", "expert", "next_layer", "next_expert", "n"], axis=1
    )
    links = links[links["n"] > 0].reset_index(drop=True)
    places = {number: place for place, number in enumerate(sorted({*links["layer"], *links["next_layer"]}))}
    nodes = _nodes(links, places)
    return nodes, pd.concat([links, *_edges(links, nodes)], axis=1), places


def _nodes(links: pd.DataFrame, places: dict[int, int]) -> pd.DataFrame:
    """One row per (layer, expert): bottom and top in 0..1."""
    out = links.groupby(["layer", "expert"])["n"].sum()
    into = links.groupby(["next_layer", "next_expert"])["n"].sum().rename_axis(["layer", "expert"])
    nodes = pd.concat([out, into], axis=1).max(axis=1).rename("tokens").reset_index().sort_values(["layer", "expert"])
    height = nodes.groupby("layer")["tokens"].transform("sum")
    count = nodes.groupby("layer")["tokens"].transform("size")
    gap = np.minimum(_GAP, 0.3 / count)
    nodes["height"] = nodes["tokens"] / height * (1 - gap * (count - 1))
    nodes["bottom"] = nodes.groupby("layer")["height"].cumsum() - nodes["height"] + gap * nodes.groupby("layer").cumcount()
    nodes["top"], nodes["share"] = nodes["bottom"] + nodes["height"], nodes["tokens"] / height
    nodes["left"], nodes["right"] = nodes["layer"].map(places) - _NODE, nodes["layer"].map(places) + _NODE
    return nodes


def _edges(links: pd.DataFrame, nodes: pd.DataFrame) -> list[pd.DataFrame]:
    """Lower and upper edge of every ribbon where it leaves, and where it arrives."""
    known = nodes.set_index(["layer", "expert"])
    ends = []
    for side, other in (("", "next_"), ("next_", "")):
        keys = [f"{side}layer", f"{side}expert"]
        order = links.sort_values([*keys, f"{other}expert"])
        node = known.loc[pd.MultiIndex.from_frame(order[keys])]
        width = order["n"].to_numpy() / node["tokens"].to_numpy() * node["height"].to_numpy()
        low = node["bottom"].to_numpy() - width
        low += pd.Series(width).groupby([order[k].to_numpy() for k in keys]).cumsum().to_numpy()
        ends.append(pd.DataFrame({f"{side}low": low, f"{side}high": low + width}, index=order.index).sort_index())
    return ends


def _curves(links: pd.DataFrame, places: dict[int, int]) -> pd.DataFrame:
    """Points along every ribbon: x, lower and upper edge."""
    count, steps = len(links), len(_STEPS)
    names = ["layer", "expert", "next_layer", "next_expert", "n"]
    table = {name: np.repeat(links[name].to_numpy(), steps) for name in names}
    begin, end = links["layer"].map(places).to_numpy() + _NODE, links["next_layer"].map(places).to_numpy() - _NODE
    table["x"] = (begin[:, None] + (end - begin)[:, None] * _STEPS).ravel()
    for edge in ("low", "high"):
        first, last = links[edge].to_numpy(), links[f"next_{edge}"].to_numpy()
        table[edge] = (first[:, None] + (last - first)[:, None] * _CURVE).ravel()
    table["link"] = np.repeat(np.arange(count), steps)
    small = {"x": "f4", "low": "f4", "high": "f4", "link": "i4", "n": "i8"}
    return pd.DataFrame(table).astype(small | dict.fromkeys(("layer", "expert", "next_layer", "next_expert"), "i2"))


def _ribbons(curves: pd.DataFrame, focus: tuple[int, int] | None) -> alt.Chart:
    curves["colour"] = (curves["expert"] % len(CATEGORY)).astype("i2")
    curves["faint"] = np.float32(0.42)
    if focus:
        from_it = (curves["layer"] == focus[0]) & (curves["expert"] == focus[1])
        to_it = (curves["next_layer"] == focus[0]) & (curves["next_expert"] == focus[1])
        curves["faint"] = np.where(from_it | to_it, 0.75, 0.07).astype("f4")
    return alt.Chart(curves).mark_area(line=False, interpolate="monotone").encode(
        x=alt.X("x:Q", axis=None), y=alt.Y("low:Q", axis=None, scale=alt.Scale(domain=[0, 1])), y2="high",
        detail="link:N", color=_colour(), opacity=alt.Opacity("faint:Q", scale=None),
        tooltip=tooltips(curves, ["layer", "expert", "next_layer", "next_expert", "n"]),
    )  # fmt: skip


def _colour() -> alt.Color:
    return alt.Color("colour:N", scale=alt.Scale(domain=list(range(len(CATEGORY))), range=list(CATEGORY)), legend=None)


def _marks(nodes: pd.DataFrame, places: dict[int, int], names: Mapping[int, str]) -> list[alt.Chart]:
    nodes["colour"] = nodes["expert"] % len(CATEGORY)
    nodes["middle"] = (nodes["bottom"] + nodes["top"]) / 2
    box = alt.Chart(nodes).mark_rect(cornerRadius=1).encode(
        x=alt.X("left:Q", axis=None), x2="right", y=alt.Y("bottom:Q", axis=None), y2="top",
        color=_colour(), tooltip=tooltips(nodes, ["layer", "expert", "tokens", "share"]),
    )  # fmt: skip
    tall = nodes[nodes["height"] > 0.022]
    number = alt.Chart(tall).mark_text(align="left", dx=3, fontSize=10).encode(x="right:Q", y="middle:Q", text=field("expert"))
    heads = pd.DataFrame({"x": list(places.values()), "name": [names.get(layer, f"layer {layer}") for layer in places]})
    head = alt.Chart(heads).mark_text(fontSize=12, fontWeight=500, dy=-10).encode(x="x:Q", y=alt.value(0), text="name")
    return [box, number, head]
