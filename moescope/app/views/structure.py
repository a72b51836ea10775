"""Structure: which experts run together, follow each other, and which paths tokens take."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.components import flow_ribbons
from moescope.app.parts import answers, panels, pickers, signature_maps
from moescope.app.queries import sampling, store_access
from moescope.show.flow import FLOW

PAGE = {"title": "Structure", "icon": ":material/account_tree:", "order": 6, "group": "Routing"}
TOGETHER = """
select expert, other, sum(n)::bigint as n, sum(share) as share from coactivation where router = ?
group by expert, other order by expert, other"""
PATHS = """
with few as (
  select t.token from tokens t join sequences s using (sequence)
  where t.run = ? and s.stack is not distinct from ?{near} order by hash(t.token), t.token limit 20000),
ways as (
  select a.token, a.forward, list(a.expert order by r.layer, a.router, a.iteration) as path
  from assignments a join routers r using (router)
  where a.run = ? and a.rank = 0 and a.token in (from few){few} group by a.token, a.forward),
p as (select path, count(*) as tokens from ways group by path)
select array_to_string(path, ' → ') as path, tokens, tokens / sum(tokens) over () as share, count(*) over () as paths,
       exp(ln(sum(tokens) over ()) - sum(tokens * ln(tokens)) over () / sum(tokens) over ()) as effective
from p order by tokens desc, path limit 25"""
CHANCE = """
with q as (select router, first / sum(first) over (partition by router) as p from expert_load where run = ? and stack = ?)
select exp(sum(s)) as effective from (select -sum(p * ln(p)) as s from q where p > 0 group by router)"""
Row = dict[str, Any]


@panels.part
def flow(run: Row, layer: pickers.Layer) -> None:
    """Ribbons from layer to layer, from the chosen layer on."""
    panels.section(
        "From layer to layer", "First choices: a ribbon is as wide as its number of tokens. Choose an expert to follow it."
    )
    if panels.unranked(run):
        return
    params = [run["run"], layer.stack, layer.layer, layer.router]
    frame = store_access.frame(FLOW, *params)
    if frame.empty:
        panels.empty("No next layer", "Choose an earlier layer; transitions need at least two traced layers of one stack.")
        return
    labels = pickers.labels(run["run"])
    focus = followed(layer, frame, labels)
    drawn = frame["n"].sum() / frame.groupby("layer")["every"].first().sum()
    title, words = f"Flow from {layer.label}", None if drawn > 0.999 else f"the widest ribbons, {drawn:.0%} of the tokens"
    look: dict[str, Any] = {"title": title, "subtitle": words, "focus": focus, "names": labels}
    flow_ribbons.show(flow_ribbons.data_of(frame, **look), "flow", partial(follow, layer, labels))
    panels.files(frame, FLOW, params, name="flow", chart=lambda: charts.flow(frame, **look))


def followed(layer: pickers.Layer, frame: pd.DataFrame, labels: dict[int, str]) -> tuple[int, int] | None:
    """(router, expert) of ?follow=, which a click on the flow sets as well: an expert of this layer, or another's as 4.17."""
    nodes = sorted({*zip(frame["next_layer"], frame["next_expert"], strict=True)})
    known = {key_of(layer, labels, node): node for node in [*((layer.router, e) for e in range(layer.experts)), *nodes]}
    names = {key: f"expert {expert} of {labels[router]}" for key, (router, expert) in known.items()}
    return known.get(url_state.choose("Follow", "follow", ["nothing", *known], lambda key: names.get(key, key)) or "")


def key_of(layer: pickers.Layer, labels: dict[int, str], node: tuple[int, int]) -> str:
    """How the URL names an expert."""
    place = "" if node[0] == layer.router else labels[node[0]].removeprefix("layer ") + "."
    return f"{place}{node[1]}"


def follow(layer: pickers.Layer, labels: dict[int, str], node: tuple[int, int] | None) -> None:
    """Write to the URL which expert was clicked."""
    url_state.put("follow", node and key_of(layer, labels, node))


@panels.part
def together(layer: pickers.Layer) -> None:
    """Co-activation of a layer."""
    panels.section("Together", "Share of the row's tokens for which the column's expert ran as well (OLMoE's co-activation).")
    frame = store_access.frame(TOGETHER, layer.router)
    if frame.empty:
        panels.empty("No pairs in this layer", "Top-1 routing has none: every token runs one expert.")
        return
    chance = ((layer.top_k or 2) - 1) / max(layer.experts - 1, 1)
    panels.heat(
        frame, "other", "expert", "share", f"Co-activation, {layer.label}", TOGETHER, [layer.router],
        name="coactivation", chance=chance, tooltip=["n"], format=".0%",
        subtitle=f"neutral colour: chance, {chance:.3g}; no expert runs beside itself",
    )  # fmt: skip


@panels.part
def paths(run: Row, layer: pickers.Layer) -> None:
    """The commonest paths."""
    panels.section(
        "Paths", "First choices of a token through all layers of the stack; of a fixed sample of 20 000 tokens in larger runs."
    )
    if panels.unranked(run):
        return
    params = [run["run"], layer.stack, run["run"]]
    near, few, kept = signature_maps.nearby(run)
    sql = PATHS.format(near=near, few=few)
    frame: pd.DataFrame = store_access.frame(sql, *params)
    if frame.empty:
        panels.empty("No path yet", "Paths appear with the first batch.")
        return
    effective = store_access.frame(CHANCE, *params[:2])["effective"].iloc[0]
    panels.cards(
        [
            (
                "Different paths",
                f"{int(frame['paths'].iloc[0]):,}",
                f"taken by {round(frame['tokens'].sum() / max(frame['share'].sum(), 1e-9)):,} tokens",
                "",
            ),
            ("Paths in effect", f"{frame['effective'].iloc[0]:,.0f}", "exp of their entropy; few tokens make it small", ""),
            ("Commonest", f"{frame['share'].iloc[0]:.2%}", frame["path"].iloc[0], ""),
            ("If layers were independent", f"{effective:,.0f}", "paths in effect, were layers to choose by load alone", ""),
        ]
    )
    panels.table(
        frame[["path", "tokens", "share"]],
        sql,
        params,
        name="paths",
        column_config={"share": st.column_config.ProgressColumn(format="percent", max_value=float(frame["share"].max()))},
    )
    sampling.sample_note(kept)


def more(run: Row) -> None:
    """Any installed analysis."""
    panels.section("Ask more", "Every analysis that is installed, with its nulls and intervals.")
    entries = {e["name"]: e for e in answers.catalogue() if not e["required"] and e["name"] != "structure"}
    name = url_state.choose(
        "Question", "ask", ["", *entries], lambda n: f"{entries[n]['title']}: {entries[n]['question']}" if n else "choose …"
    )
    if name:
        answers.ask(name, run)


def render() -> None:
    """The page."""
    panels.head("Structure", "How layers hang together: who runs with whom, who follows whom, and which paths tokens take.")
    run = pickers.the_run()
    with st.columns([1, 2])[0]:
        layer = pickers.choose_layer(run["run"]) if run else None
    if run is None or layer is None:
        panels.unrouted(run)
        return
    answers.verdict("structure", run)
    left, right = st.columns([3, 2], gap="large")
    with left:
        flow(run, layer)
    with right:
        together(layer)
    paths(run, layer)
    answers.ask("structure", run, wait=True)
    more(run)


render()
