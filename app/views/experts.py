"""Experts: what one expert does, and which expert does something."""

from typing import Any

import expert_facts as facts
import linked
import panels
import pickers
import stored
import streamlit as st
from wording import count, markup, share, token, visible

from moescope import charts

PAGE = {"title": "Experts", "icon": ":material/neurology:", "order": 3, "group": "Look"}
KINDS = """
select kind, of_tokens from (select distinct kind, false as of_tokens from label_rollup where run = ?
union select distinct l.kind, true from token_labels l join tokens t using (token) where t.run = ?) order by of_tokens, kind"""
Row = dict[str, Any]


@panels.part
def finder(run: Row) -> None:
    """Experts that prefer a label or a token."""
    text = linked.typed(
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
    event = st.dataframe(
        shown,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"found-{text}",
        height=240,
        column_config={
            "share": st.column_config.NumberColumn(format="percent"),
            "overall": st.column_config.NumberColumn(format="percent"),
            "lift": st.column_config.NumberColumn(format="%.2f ×"),
        },
    )
    panels.files(shown, sql, params, name="found")
    if event.selection.rows:
        row = frame.iloc[event.selection.rows[0]]
        label = next((x.label for x in pickers.layers(run["run"]) if x.router == row["router"]), None)
        linked.go("experts", layer=label, expert=int(row["expert"]))


def glance(run: Row, layer: pickers.Layer, expert: int) -> float:
    """Load of this expert among the others; returns its share."""
    frame = stored.frame(facts.LOAD, layer.router)
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
        panels.few(row["assignments"])
    return float(row["share"] or 0) * (frame["assignments"].sum() / max(_decisions(layer), 1))


def _decisions(layer: pickers.Layer) -> int:
    found = stored.rows("select decisions from decision_rollup where router = ?", layer.router)
    return int(found[0]["decisions"]) if found else 0


@panels.part
def tokens_of(run: Row, layer: pickers.Layer, expert: int, overall: float) -> None:
    """Its characteristic tokens, and places where they stand."""
    frame, params = facts.top_tokens(run["run"], layer, expert, overall)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        panels.section("Its tokens", "By lift: how many times likelier than any token to come here; 1 is chance.")
        named = frame.dropna(subset=["text"])
        if named.empty:
            panels.empty("Patches have no words", "See its classes below, or the patches on the Tokens page.")
            picked = ""
        else:
            shown = named.assign(token=named["text"].map(visible))[["token", "tokens", "rate", "lift", "at_least"]]
            event = st.dataframe(
                shown,
                hide_index=True,
                on_select="rerun",
                selection_mode="single-row",
                height=420,
                key=f"top-{layer.router}-{expert}",
                column_config={
                    "rate": st.column_config.NumberColumn("comes here", format="percent"),
                    "lift": st.column_config.NumberColumn(format="%.2f ×"),
                    "at_least": st.column_config.NumberColumn("at least (95 %)", format="%.2f ×"),
                },
            )
            panels.files(shown, facts.TOKENS, params, name="expert-tokens")
            picked = named.iloc[event.selection.rows[0]]["text"] if event.selection.rows else ""
    with right:
        words = (
            f"With “{token(picked).strip()}”."
            if picked
            else "A fixed sample of places where it is the first choice. Choose a token to see its own."
        )
        panels.section("In context", words)
        contexts(run, layer, expert, picked)


def contexts(run: Row, layer: pickers.Layer, expert: int, picked: str) -> None:
    """Places with the tokens around them; each opens the token's route."""
    frame, params = facts.contexts(layer, expert, picked)
    lines = []
    for (number, sequence, document), some in frame.groupby(["token", "sequence", "document"], dropna=False, sort=False):
        left = "".join(token(t) for t in some[some["distance"] < 0]["text"].fillna("▦"))
        right = "".join(token(t) for t in some[some["distance"] > 0]["text"].fillna("▦"))
        here = some[some["distance"] == 0]["text"].iloc[0]
        query = f"run={run['run']}&amp;sequence={sequence}&amp;token={number}&amp;layer={markup(layer.label).replace(' ', '+')}"
        lines.append(
            f'<div><span class="l"><bdi>{markup(left[-90:])}</bdi></span><a href="tokens?{query}" target="_self"><mark>'
            f'{markup(visible(here) if here else "patch")}</mark></a><span class="r"><bdi>{markup(right[:90])}</bdi></span>'
            f"<small>{markup(document)} · {some['weight'].iloc[0]:.2f}</small></div>"
        )
    if not lines:
        panels.empty("No place where it is the first choice", "It may run only as a second choice.")
        return
    st.html(f'<div class="ms-context">{"".join(lines)}</div>')
    panels.files(frame, facts.CONTEXTS, params, name="contexts")


@panels.part
def labels(run: Row, layer: pickers.Layer, expert: int, even: float) -> None:
    """Which labels come here: sequences' (domain, class) and tokens' (parts of speech)."""
    kinds = {r["kind"]: r["of_tokens"] for r in stored.rows(KINDS, run["run"], run["run"])}
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
                else linked.choose("Kind", f"kind-{kind}", [kind, *[k for k in kinds if k != kind]]) or kind
            )
            frame, params = facts.by_label(layer, expert, one, bool(kinds[one]))
            if frame.empty:
                panels.empty(f"No {one} here", "No labelled token was routed by this layer.")
                continue
            chart = charts.bars(
                frame,
                "label",
                "share",
                "low",
                "high",
                chance=even,
                title=f"Share of each {one} that comes here",
                horizontal=True,
                subtitle="95 % bootstrap over documents; dashed: its share of everything",
                format=".0%",
                sort="-y",
                chance_label="all",
                tooltip=["assignments", "documents"],
            )
            panels.figure(chart, frame, facts.BY_LABEL, params, name=f"expert-{one}")


@panels.part
def company(run: Row, layer: pickers.Layer, expert: int) -> None:
    """Experts that run with it, before it, after it, and on the same tokens."""
    places = [column for _ in range(2) for column in st.columns(2)]
    k, many, key = layer.top_k or 1, layer.experts, [run["run"], layer.stack, layer.layer, expert]
    together = stored.frame(facts.COACTIVE, layer.router, expert)
    before, after = stored.frame(facts.FROM, *key), stored.frame(facts.TO, *key)
    alike, params = facts.nearest(layer, expert)
    chance = (k - 1) / max(many - 1, 1)
    with places[0]:
        _ranked(
            together,
            "share",
            "Runs together with",
            chance,
            facts.COACTIVE,
            [layer.router, expert],
            "Top-1 routing has no co-activation.",
        )
    with places[1]:
        _ranked(
            alike, "cosine", "Sees the same tokens as (cosine of counts)", None, facts.PROFILE, params, "It has no company."
        )
    with places[2]:
        _ranked(
            before, "share", "First choices one layer before", None, facts.FROM, key, "No layer before this one was traced."
        )
    with places[3]:
        _ranked(
            after, "share", "First choices one layer after", layer.even, facts.TO, key, "No layer after this one was traced."
        )


def _ranked(frame: Any, value: str, title: str, chance: float | None, sql: str, params: list[Any], none: str) -> None:
    if frame.empty:
        panels.empty(title, none)
        return
    chart = charts.bars(
        frame,
        "other",
        value,
        chance=chance,
        title=title,
        horizontal=True,
        sort="-y",
        format=".0%" if value == "share" else ".2f",
    )
    panels.figure(chart, frame, sql, params, name=title.replace(" ", "-"))


def effects(run: Row, layer: pickers.Layer, expert: int) -> None:
    """What happens without it."""
    panels.section("Without it", "Effects of taking this expert away.")
    columns = set(
        stored.frame("select column_name from information_schema.columns where table_name = 'ablation_effects'")["column_name"]
    )
    where = {"router": layer.router, "layer": layer.layer}
    key = next((c for c in where if c in columns), None)
    frame = (
        stored.frame(f"select * from ablation_effects where {key} = ? and expert = ? limit 200", where[key], expert)
        if key and "expert" in columns
        else None
    )
    if frame is None or frame.empty:
        panels.empty(
            "It was not ablated yet",
            f"Run `moescope ablate {run['model_name']} --store STORE` to measure what the model loses without it.",
        )
        return
    panels.table(frame, "select * from ablation_effects", name="effects")


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
        panels.empty("This run has no router yet", "It appears as soon as the first batch is written.")
        return
    with two:
        expert = pickers.choose_expert(layer)
    with three:
        finder(run)
    overall = glance(run, layer, expert)
    tokens_of(run, layer, expert, overall)
    panels.section("What it prefers")
    labels(run, layer, expert, overall / max(layer.top_k or 1, 1))
    panels.section("Its company")
    company(run, layer, expert)
    effects(run, layer, expert)


render()
