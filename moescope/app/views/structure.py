"""Structure: which experts run together, follow each other, and which paths tokens take."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.components import flow_ribbons
from moescope.app.parts import answers, figures, panels, pickers
from moescope.app.queries import sampling, store_access
from moescope.app.wording import share
from moescope.show.flow import query as flow_query
from moescope.show.flow import said_of

PAGE = {"title": "Structure", "icon": ":material/account_tree:", "order": 6, "group": "Routing"}
TOGETHER = """
select expert, other, sum(n)::bigint as n, sum(share) as share from coactivation where router = ?
group by expert, other order by expert, other"""
TOGETHER_ASKED = """
with mine as materialized (
  select a.forward, a.iteration, a.token, a.expert from assignments a where a.router = ?{few}),
n as (select expert, count(*) as every from mine group by expert)
select a.expert, b.expert as other, count(*) as n, count(*) / any_value(n.every) as share
from mine a join mine b using (forward, iteration, token) join n on n.expert = a.expert where b.expert <> a.expert
group by a.expert, b.expert order by a.expert, other"""
PATHS = """
with firsts as materialized (
  select a.token, a.forward, a.router, a.iteration, a.expert, r.layer from assignments a join routers r using (router)
  where a.run = ? and coalesce(r.stack, '') = ? and a.rank = 0{few}),
alone as (
  select exp(sum(h)) as alone from (
    select -sum(n / every * ln(n / every)) as h from (
      select router, iteration, count(*) as n, sum(count(*)) over (partition by router, iteration) as every
      from firsts group by router, iteration, expert) group by router, iteration)),
ways as (
  select token, forward, list(expert order by layer, router, iteration) as path from firsts group by token, forward),
n as (
  select path, coalesce(s.document, s.sequence::varchar) as unit, count(*)::double as n
  from ways join tokens t using (token) join sequences s using (sequence) group by all),
u as (select unit, sum(n) as n from n group by unit),
every as (select sum(n) as n, sum(n * n) as squares, count(*) as units from u),
p as (select path, sum(n.n) as tokens, sum(n.n * n.n) as own, sum(n.n * u.n) as mixed from n join u using (unit) group by path),
q as (
  select *, tokens / e.n as share, {half} as half, count(*) over () as paths, e.units as documents,
         exp(ln(e.n) - sum(tokens * ln(tokens)) over () / e.n) as effective
  from p, every e)
select array_to_string(path, ' → ') as path, tokens::bigint as tokens, share, {low} as low, {high} as high,
       paths, effective, documents, alone
from q, alone order by tokens desc, path limit 25"""
HALF = sampling.half_width_sql("(tokens / e.n)", "own", "mixed", "e.squares", "e.n", "e.units")
ONE = """
select token, t.sequence from (
  select a.token, a.forward, array_to_string(list(a.expert order by r.layer, a.router, a.iteration), ' → ') as path
  from assignments a join routers r using (router)
  where a.run = ? and coalesce(r.stack, '') = ? and a.rank = 0 group by a.token, a.forward) w
join tokens t using (token) where path = ? order by token limit 1"""
LOW, HIGH = (bound.format(share="share") for bound in sampling.BOUNDS)
LAYERS = 4  # of a flow
AMONG = 20_000  # tokens whose paths are counted, in large runs
Row = dict[str, Any]


@panels.part
def flow(run: Row, layer: pickers.Layer, counted: str) -> None:
    """Ribbons from layer to layer, from the chosen layer on."""
    panels.section(
        "From layer to layer",
        "First choices: a ribbon is as wide as its number of tokens. Choose an expert to follow it.",
    )
    if panels.unranked(run):
        return
    some, kept = sampling.filter_sql(run, sampling.EVERY, LAYERS) if counted == "asked" else ("", 1.0)
    sql, params = flow_query(run["run"], layer, counted, some)
    frame = store_access.frame(sql, *params)
    if frame.empty:
        panels.empty("No next layer", "Choose an earlier layer; transitions need at least two traced layers of one stack.")
        return
    labels = pickers.labels(run["run"])
    focus = followed(layer, frame, labels)
    drawn = frame["n"].sum() / frame.groupby("layer")["every"].first().sum()
    widest = [] if drawn > 0.999 else [f"the widest ribbons, {drawn:.0%} of the tokens"]
    title, words = f"Flow from {layer.label}", "; ".join([said_of(counted), *widest])
    look: dict[str, Any] = {"title": title, "subtitle": words, "focus": focus, "names": labels}
    flow_ribbons.show(flow_ribbons.data_of(frame, **look), "flow", partial(follow, layer, labels))
    figures.files(frame, sql, params, name="flow", chart=lambda: charts.flow(frame, **look))
    sampling.sample_note(kept)


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
def together(run: Row, layer: pickers.Layer, counted: str) -> None:
    """Co-activation of a layer."""
    said = "was chosen" if counted == "asked" else "ran"
    panels.section(
        "Together", f"Share of the row's tokens for which the column's expert {said} as well (OLMoE's co-activation)."
    )
    few, kept = sampling.filter_sql(run, sampling.LAYER, layer.top_k or 1) if counted == "asked" else ("", 1.0)
    sql = TOGETHER_ASKED.format(few=few) if counted == "asked" else TOGETHER
    frame = store_access.frame(sql, layer.router)
    if frame.empty:
        panels.empty("No pairs in this layer", "Top-1 routing has none: every token runs one expert.")
        return
    chance = ((layer.top_k or 2) - 1) / max(layer.experts - 1, 1)
    figures.heat(
        frame, "other", "expert", "share", f"Co-activation, {layer.label}", sql, [layer.router],
        name="coactivation", chance=chance, limits=(0.0, max(2 * chance, 1e-9)), tooltip=["n"], format=".0%",
        clicked=partial(to_company, run, layer), opens="row's expert and its company",
        subtitle=f"blue: less than chance ({share(chance)}); orange: more; full colour at none and at twice chance",
    )  # fmt: skip
    sampling.sample_note(kept)


def to_company(run: Row, layer: pickers.Layer, other: int, expert: int) -> None:
    """Open the company of the row's expert, in which the column's is."""
    url_state.request_page("experts", run=run["run"], layer=layer.label, expert=expert, more="company")


@panels.part
def paths(run: Row, layer: pickers.Layer) -> None:
    """The commonest paths."""
    panels.section("Paths", "The first choices of a token through all layers of the stack, whether they ran or were dropped.")
    if panels.unranked(run):
        return
    params = [run["run"], layer.stack]
    few, kept = sampling.filter_sql(run, AMONG, 1)
    sql = PATHS.format(few=few, half=HALF, low=LOW, high=HIGH)
    frame: pd.DataFrame = store_access.frame(sql, *params)
    if frame.empty:
        panels.empty("No path yet", "Paths appear with the first batch.")
        return
    panels.cards(path_cards(frame))
    number, percent = (
        st.column_config.NumberColumn,
        {c: st.column_config.NumberColumn(format="percent") for c in ("low", "high")},
    )
    bar = st.column_config.ProgressColumn(format="percent", max_value=float(frame["share"].max()))
    st.caption("Choose a row to see a token that took that path.")
    shown = frame[["path", "tokens", "share", "low", "high"]]
    columns = {"share": bar, "tokens": number(format="localized"), **percent}
    url_state.row(shown, "paths", partial(to_path, run, layer, shown), width="stretch", column_config=columns)
    figures.files(shown, sql, params, name="paths")
    panels.cut_note(len(frame), int(frame["paths"].iloc[0]), "paths are listed, the commonest")
    sampling.sample_note(kept)


def to_path(run: Row, layer: pickers.Layer, frame: pd.DataFrame, row: int | None) -> None:
    """Open the first token that took the path of this row."""
    if row is not None:
        found = store_access.rows(ONE, run["run"], layer.stack, frame["path"].iloc[row])
        if found:
            url_state.request_page("tokens", run=run["run"], sequence=found[0]["sequence"], token=found[0]["token"])


def path_cards(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """How many paths there are, how many in effect, the commonest, and how many in effect were layers independent."""
    top = frame.iloc[0]
    between = "" if pd.isna(top["low"]) else f"; {share(top['low'])} to {share(top['high'])} (95 % over documents)"
    return [
        ("Different paths", f"{int(top['paths']):,}", f"taken by {round(top['tokens'] / top['share']):,} tokens", ""),
        ("Paths in effect", f"{top['effective']:,.0f}", "exp of their entropy; few tokens make it small", ""),
        ("Commonest", f"{top['share']:.2%}", f"{top['path']}{between}", ""),
        (
            "If layers were independent",
            f"{top['alone']:,.0f}",
            "paths in effect, if layers chose by these loads alone",
            "",
        ),
    ]


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
    panels.head(
        "Structure",
        "How layers hang together: who runs with whom, who follows whom, and which paths tokens take.",
        "A wide ribbon, or an orange pair, says that the choice of one expert goes with that of another; "
        "compare with chance, not with 0.",
    )
    run = pickers.the_run()
    one, two, _ = st.columns([1, 1, 1])
    with one:
        layer = pickers.choose_layer(run["run"]) if run else None
    if run is None or layer is None:
        panels.unrouted(run)
        return
    with two:
        counted = pickers.choose_counted(run["run"])
    answers.verdict("structure", run)
    left, right = st.columns([3, 2], gap="large")
    with left:
        flow(run, layer, counted)
    with right:
        together(run, layer, counted)
    paths(run, layer)
    answers.ask("structure", run, wait=True)
    more(run)


render()
