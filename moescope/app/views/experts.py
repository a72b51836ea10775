"""Experts: what one expert does: its tokens, contexts, labels, company, effects; and which expert does something."""

from typing import Any

import streamlit as st

from moescope import charts
from moescope.app import url_state, wording
from moescope.app.parts import answers, figures, lacking, note_field, panels, pickers
from moescope.app.parts.expert import card_grid, expert_panels
from moescope.app.queries import sampling, store_access
from moescope.app.queries.effects import OF_EXPERT, marked, read
from moescope.app.queries.expert import expert_cards, finding
from moescope.app.queries.expert import experts as facts
from moescope.app.wording import count, figure, share
from moescope.store import imported, notes

PAGE = {"title": "Experts", "icon": ":material/neurology:", "order": 3, "group": "Look"}
KNOWN = (
    "select count(distinct label) as n from sequence_labels l join sequences s using (sequence) where s.run = ? and kind = ?",
    "select count(distinct l.label) as n from token_labels l join tokens t using (token) where t.run = ? and l.kind = ?",
)  # labels of a kind: of sequences, of tokens
SHOWN = {"one": "One expert", "all": "All of the layer, as cards"}
MORE = {"labels": "What it prefers", "company": "Its company", "without": "Without it"}
Row = dict[str, Any]


@panels.part
def finder(run: Row) -> None:
    """Experts that prefer a label or a token."""
    like = ", ".join(wording.clean(label, 20) for label in finding.examples(run["run"]))
    text = url_state.typed(
        "Find experts by what they do", "find", placeholder=f"a label or a token: {like or 'the'} …", icon=":material/search:"
    )
    if not text:
        return
    frame, sql, params = finding.find(run, text)
    if frame.empty:
        panels.empty(
            f"No expert is known for “{text}”",
            f"Search for a whole token or a label of {finding.LEAST} tokens or more (case does not matter, % is anything).",
        )
        return
    st.caption(
        "Share: of the tokens like that, those for which the expert ran; overall: the same of all tokens with such a label (of "
        "all tokens, for a token). Lift is the one over the other; 1 is chance. Choose a row to open the expert."
    )
    shown = frame[["stack", "layer", "expert", "what", "tokens", "share", "overall", "lift"]]
    labels = pickers.labels(run["run"])

    def picked(row: int | None) -> None:
        if row is not None:
            url_state.request_page("experts", layer=labels[frame["router"].iloc[row]], expert=int(frame["expert"].iloc[row]))

    number = st.column_config.NumberColumn
    columns = {"lift": number(format="%.2f ×")}
    url_state.row(shown, "found", picked, shares=("share", "overall"), height=240, column_config=columns)
    panels.cut_note(len(shown), int(frame["found"].iloc[0]), "experts are listed, of largest lift")
    sampling.sample_note(finding.kept(run))
    figures.files(shown, sql, params, name="found")


def glance(run: Row, layer: pickers.Layer, expert: int) -> float:
    """Load of this expert among the others; returns the share of the layer's tokens for which it ran."""
    frame = store_access.frame(facts.LOAD, layer.router)
    frame = frame.assign(asked=frame["assignments"] + frame["dropped"])
    row, looked = frame[frame["expert"] == expert].iloc[0], lacking.looked(layer)
    of_tokens, each = float(row["assignments"]) / max(looked, 1), float(frame["assignments"].sum()) / max(looked, 1)
    ranked = row["assignments"] and imported.ranked(run["capture"])
    first = f"{share(row['first'] / row['assignments'])} of them as first choice" if ranked else ""
    weight = row["mean_weight"] if imported.weighted(run["capture"]) else None
    lost = bool(frame["dropped"].sum())
    items = [
        ("Share of load", share(row["share"]), f"of what ran in this layer; even is {share(layer.even)}",
         "" if row["assignments"] else "bad"),
        ("Share of tokens", share(of_tokens if looked else None),
         f"it ran for, of {count(looked)}; even is {share((layer.top_k or each) / layer.choices)}" if looked else "", ""),
        ("Times it ran", count(row["assignments"]), first, ""),
        ("Mean weight", figure(weight, ".3f"),
         f"where it ran; {f'top-{layer.top_k} of' if layer.top_k else 'of'} {layer.experts}", ""),
    ]  # fmt: skip
    if lost:
        items += [
            ("Asked for", count(row["asked"]), f"{share(row['asked'] / frame['asked'].sum())} of the layer's demand", ""),
            ("Dropped", count(row["dropped"]), f"{share(row['dropped'] / row['asked'] if row['asked'] else None)} of what was "
             "asked of it, for want of capacity", "warn" if row["dropped"] else ""),
        ]  # fmt: skip
    rank, of = _rank(frame["assignments"], row["assignments"]), f"of {layer.experts}"
    words = f"{layer.label}; {_rank(frame['asked'], row['asked'])} by what was asked" if lost else layer.label
    items.append(("Rank by what ran" if lost else "Rank by load", f"{rank} {of}", words, ""))
    panels.cards(items)
    if not row["assignments"]:
        panels.empty(
            f"Expert {expert} of {layer.label} never ran", "It is dead on this data: look at another one, or trace other data."
        )
    else:
        panels.small_count_note(row["assignments"])
    return of_tokens


def _rank(values: Any, own: float) -> int:
    return int((values > own).sum()) + 1


@panels.part
def labels(run: Row, layer: pickers.Layer, expert: int) -> None:
    """Which labels come here: sequences' (domain, class) and tokens' (parts of speech)."""
    panels.section("What it prefers", "Of the tokens with each label that this layer looked at, the share for which it ran.")
    kinds = {r["kind"]: r["of_tokens"] for r in store_access.rows(facts.KINDS, run["run"], run["run"])}
    if not kinds:
        panels.empty(
            "No labels in this run", "Trace data with labels (domain, class, parts of speech) to see what its experts prefer."
        )
        return
    for column, kind in zip(st.columns(min(len(kinds), 2)), list(kinds)[:2], strict=False):
        with column:
            others = [kind, *[k for k in kinds if k != kind]]
            one = kind if len(kinds) <= 2 else url_state.choose("Kind", f"kind-{kind}", others) or kind
            label_bars(run, layer, expert, one, bool(kinds[one]))
    sampling.sample_note(facts.part_of(run, layer)[1])


def label_bars(run: Row, layer: pickers.Layer, expert: int, kind: str, of_tokens: bool) -> None:
    """The labels of one kind, the most preferred first."""
    frame, sql, params = facts.by_label(run, layer, expert, kind, of_tokens)
    if frame.empty:
        panels.empty(f"No {kind} here", "No labelled token was routed by this layer.")
        return
    figures.ranked(
        frame.head(facts.BARS), "label", "share", sql, params, name=f"expert-{kind}", low="low", high="high",
        chance=float(frame["overall"].iloc[0]), title=f"Share of the tokens of each {kind} that come here",
        subtitle="95 % bootstrap over documents", format=".0%", chance_label=f"of all tokens with a {kind}",
        tooltip=["here", "tokens", "documents"],
    )  # fmt: skip
    known = store_access.rows(KNOWN[of_tokens], run["run"], kind)[0]["n"]
    panels.cut_note(min(len(frame), facts.BARS), known, f"labels of {kind} are drawn")


@panels.part
def effects(run: Row, layer: pickers.Layer, expert: int) -> None:
    """What happens without it."""
    panels.section("Without it", f"Change of the loss, nats per token, without expert {expert} of {layer.label}.")
    params = [run["run"], layer.router, expert]
    frame = read(run["run"], store_access.frame(OF_EXPERT, *params))
    if frame.empty:
        panels.empty(
            "It was not ablated yet",
            f"Measure what the model loses without it: `{lacking.ablating(run)} --experts {layer.layer}:{expert} --by domain`",
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
        figures.figure(chart, OF_EXPERT, params, name="expert-effects")
    with right:
        figures.table(marked(frame[["delta_nll", *(c for c in frame if c != "delta_nll")]]).pipe(first_is), OF_EXPERT, params,
                     name="effects")  # fmt: skip
    panels.cut_note(min(len(shown), 40), len(shown), "groups are drawn, with the largest effects first in their kind")


def first_is(frame: Any) -> Any:
    """What each row is, in front."""
    return frame[["is", *(c for c in frame if c != "is")]]


def render() -> None:
    """The page."""
    panels.head(
        "Experts",
        "What one expert does: its tokens, contexts, labels and company; and which expert does something.",
        "Lift is how many times more of something comes here than of everything: 1 is chance. N and P go to "
        "the next and previous expert.",
    )
    run = pickers.the_run()
    if run is None:
        panels.empty("This store has no run yet", "Trace a model into it: `moescope trace MODEL --data DATA --store STORE`")
        return
    one, two, three, four = st.columns([1.1, 1.1, 0.9, 2.4], vertical_alignment="bottom")
    with one:
        layer = pickers.choose_layer(run["run"])
    if layer is None:
        panels.unrouted(run)
        return
    with two:
        expert = pickers.choose_expert(layer)
    with three, st.container(horizontal=True):
        step(layer, expert)
    with four:
        finder(run)
    none = lacking.decisions(run, layer)
    if none and lacking.decisions(run) is None:  # of this layer alone
        panels.empty(*none)
        return
    if url_state.tabs("Which experts", "show", SHOWN) == "all":
        answers.verdict("syntax_experts", run)
        card_grid.show(run, layer)
        return
    top = st.container()
    overall = glance(run, layer, expert)
    if none:
        panels.empty(*none)
        return
    expert_panels.tokens_of(run, layer, expert, overall)
    shown = url_state.tabs("More about it", "more", MORE)
    if shown == "labels":
        labels(run, layer, expert)
    elif shown == "company":
        expert_panels.company(run, layer, expert)
    else:
        effects(run, layer, expert)
    with top:
        summary(run, layer, expert)


def step(layer: pickers.Layer, expert: int) -> None:
    """The previous and the next expert, by a click or a key."""

    def to(number: int) -> None:
        url_state.put("expert", number % max(layer.experts, 1) or None)
        for key in url_state.FORGET["expert"]:
            url_state.put(key, None)

    st.button("‹", key="expert-previous", shortcut="P", help="The previous expert", on_click=to, args=(expert - 1,))
    st.button("›", key="expert-next", shortcut="N", help="The next expert", on_click=to, args=(expert + 1,))


@panels.part
def summary(run: Row, layer: pickers.Layer, expert: int) -> None:
    """The expert in a line, from measured figures, and the user's own words on it; drawn last, since it counts most."""
    with st.spinner("Counting its labels …"):
        card = next((card for card in expert_cards.of(run, layer) if card.expert == expert), None)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        if card is not None:
            panels.reading(f"Expert {expert} of {layer.label}: {card.summary}.")
    with right:
        note_field.field(*notes.expert(store_access.reader(), layer.router, expert), key="expert")


render()
