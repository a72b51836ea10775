"""Experts: what one expert does: its tokens, contexts, labels, company, effects; and which expert does something."""

from typing import Any

import streamlit as st

from moescope import charts
from moescope.app import url_state, wording
from moescope.app.parts import expert_panels, panels, pickers
from moescope.app.queries import experts as facts
from moescope.app.queries import sampling, store_access
from moescope.app.queries.effects import OF_EXPERT
from moescope.app.wording import count, share

PAGE = {"title": "Experts", "icon": ":material/neurology:", "order": 3, "group": "Look"}
KINDS = """
select kind, of_tokens from (select distinct kind, false as of_tokens from label_rollup where run = ?
union select distinct l.kind, true from token_labels l join tokens t using (token) where t.run = ?)
order by of_tokens, kind <> 'upos', kind"""
MORE = {"labels": "What it prefers", "company": "Its company", "without": "Without it"}
Row = dict[str, Any]


@panels.part
def finder(run: Row) -> None:
    """Experts that prefer a label or a token."""
    text = url_state.typed(
        "Find experts by what they do",
        "find",
        placeholder="a label or a token: law, VERB, Sneaker, the …",
        icon=":material/search:",
    )
    if not text:
        return
    frame, sql, params = facts.find(run["run"], run["model"], text)
    if frame.empty:
        panels.empty(
            f"No expert is known for “{text}”",
            "Search for a whole token or label (case does not matter, % stands for anything).",
        )
        return
    st.caption("Lift: how many times more of it goes here than of everything; 1 is chance. Choose a row to open the expert.")
    shown = frame[["stack", "layer", "expert", "what", "n", "share", "overall", "lift"]]
    labels = pickers.labels(run["run"])

    def picked(row: int | None) -> None:
        if row is not None:
            url_state.request_page("experts", layer=labels[frame["router"].iloc[row]], expert=int(frame["expert"].iloc[row]))

    url_state.row(
        shown,
        "found",
        picked,
        height=240,
        column_config={
            "share": st.column_config.NumberColumn(format="percent"),
            "overall": st.column_config.NumberColumn(format="percent"),
            "lift": st.column_config.NumberColumn(format="%.2f ×"),
        },
    )
    panels.files(shown, sql, params, name="found")


def glance(layer: pickers.Layer, expert: int) -> tuple[float, float]:
    """Load of this expert among the others; returns its share of the assignments that ran, and of the tokens."""
    frame = store_access.frame(facts.LOAD, layer.router)
    row = frame[frame["expert"] == expert].iloc[0]
    k = layer.top_k or 1
    panels.cards(
        [
            (
                "Share of load",
                share(row["share"]),
                f"even load is {share(layer.even)}",
                "bad" if not row["assignments"] else "",
            ),
            (
                "Times it ran",
                count(row["assignments"]),
                f"{share(row['first'] / row['assignments'] if row['assignments'] else None)} as first choice",
                "",
            ),
            (
                "Mean weight",
                f"{row['mean_weight']:.3f}" if row["mean_weight"] == row["mean_weight"] else "–",
                f"top-{k} of {layer.experts}",
                "",
            ),
            ("Dropped", count(row["dropped"]), "chosen but not run, for want of capacity", "warn" if row["dropped"] else ""),
            ("Rank by load", f"{int((frame['share'] > (row['share'] or 0)).sum()) + 1} of {layer.experts}", layer.label, ""),
        ]
    )
    if not row["assignments"]:
        panels.empty(
            f"Expert {expert} of {layer.label} never ran", "It is dead on this data: look at another one, or trace other data."
        )
    else:
        panels.small_count_note(row["assignments"])
    share_of = float(row["share"] or 0)
    return share_of, share_of * float(frame["assignments"].sum() / max(_decisions(layer), 1))


def _decisions(layer: pickers.Layer) -> int:
    found = store_access.rows("select decisions from decision_rollup where router = ?", layer.router)
    return int(found[0]["decisions"]) if found else 0


@panels.part
def labels(run: Row, layer: pickers.Layer, expert: int, even: float) -> None:
    """Which labels come here: sequences' (domain, class) and tokens' (parts of speech)."""
    panels.section("What it prefers", "Of all tokens with a label, the share that comes here.")
    kinds = {r["kind"]: r["of_tokens"] for r in store_access.rows(KINDS, run["run"], run["run"])}
    if not kinds:
        panels.empty(
            "No labels in this run", "Trace data with labels (domain, class, parts of speech) to see what its experts prefer."
        )
        return
    for column, kind in zip(st.columns(min(len(kinds), 2)), list(kinds)[:2], strict=False):
        with column:
            one = (
                kind
                if len(kinds) <= 2
                else url_state.choose("Kind", f"kind-{kind}", [kind, *[k for k in kinds if k != kind]]) or kind
            )
            frame, sql, params = facts.by_label(run, layer, expert, one, bool(kinds[one]))
            if frame.empty:
                panels.empty(f"No {one} here", "No labelled token was routed by this layer.")
                continue
            panels.ranked(
                frame, "label", "share", sql, params, name=f"expert-{one}", low="low", high="high", chance=even,
                title=f"Share of each {one} that comes here", subtitle="95 % bootstrap over documents", format=".0%",
                chance_label="its share of everything", tooltip=["assignments", "documents"],
            )  # fmt: skip
    sampling.sample_note(facts.part_of(run, layer)[1])


@panels.part
def effects(run: Row, layer: pickers.Layer, expert: int) -> None:
    """What happens without it."""
    panels.section("Without it", "Change of the loss, in nats per token, when this expert is taken away.")
    params = [run["run"], layer.router, expert]
    frame = store_access.frame(OF_EXPERT, *params)
    if frame.empty:
        panels.empty(
            "It was not ablated yet",
            f"Measure what the model loses without it: `moescope ablate {run['model_name']} --data {run['dataset'] or 'DATA'} "
            f"--store {store_access.path().name} --experts {layer.layer}:{expert} --by domain`",
        )
        return
    mode = url_state.choose("Instead of the expert", "mode", list(frame["mode"].unique()), wording.mode)
    own = frame[(frame["mode"] == mode) & (frame["control"] == "none")].drop_duplicates(["group_kind", "group"])
    shown = own.assign(group=[k if k == "all" else f"{k}: {g}" for k, g in zip(own["group_kind"], own["group"], strict=True)])
    chart = charts.bars(
        shown.head(40), "group", "delta_nll", "ci_low", "ci_high", chance=0.0, chance_label="no effect", horizontal=True,
        title="By group of tokens", subtitle="95 % bootstrap over documents", tooltip=["q", "load", "kl", "n", "units"],
    )  # fmt: skip
    left, right = st.columns(2)
    with left:
        panels.figure(chart, OF_EXPERT, params, name="expert-effects")
    with right:
        panels.table(frame, OF_EXPERT, params, name="effects")


def render() -> None:
    """The page."""
    panels.head("Experts", "What one expert does: its tokens, contexts, labels and company; and which expert does something.")
    run = pickers.the_run()
    if run is None:
        panels.empty("This store has no run yet", "Trace a model into it: `moescope trace MODEL --data DATA --store STORE`")
        return
    one, two, three = st.columns([1.1, 1.1, 2.6], vertical_alignment="bottom")
    with one:
        layer = pickers.choose_layer(run["run"])
    if layer is None:
        panels.unrouted(run)
        return
    with two:
        expert = pickers.choose_expert(layer)
    with three:
        finder(run)
    even, overall = glance(layer, expert)
    expert_panels.tokens_of(run, layer, expert, overall)
    shown = url_state.tabs("More about it", "more", MORE)
    if shown == "labels":
        labels(run, layer, expert, even)
    elif shown == "company":
        expert_panels.company(run, layer, expert)
    else:
        effects(run, layer, expert)


render()
