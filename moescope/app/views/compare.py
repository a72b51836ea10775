"""Compare: two runs of one model, or two models: load, changed tokens, the same text in both, which layers group alike."""

from functools import partial
from typing import Any

import streamlit as st

from moescope import charts
from moescope.app import url_state
from moescope.app.components import colored_tokens
from moescope.app.parts import answers, figures, layer_maps, panels, pickers
from moescope.app.parts.token import route_panel, sequence_picker
from moescope.app.queries import comparison, token_routes
from moescope.app.wording import clean, share, some, visible
from moescope.pictures import token_sheet
from moescope.show.demand import COUNTED

PAGE = {"title": "Compare", "icon": ":material/compare_arrows:", "order": 5, "group": "Routing"}
Row = dict[str, Any]


def choose() -> tuple[Row, Row] | None:
    """The run of the sidebar, and another one."""
    run, known = pickers.the_run(), {r["run"]: r for r in pickers.runs()}
    if run is None or len(known) < 2:
        panels.empty(
            "There is one run, and comparing takes two",
            "Trace again into this store: `moescope trace MODEL --data DATA --store STORE`",
        )
        return None
    others = [r for r in known if r != run["run"]]
    others.sort(key=lambda r: (known[r]["family"] != run["family"], known[r]["dataset"] != run["dataset"], r))
    left, right = st.columns(2)
    with left:
        st.text_input("Run A", pickers.run_name(run), disabled=True, help="Choose it in the sidebar.")
    with right:
        other = url_state.choose("Run B", "with", others, lambda r: pickers.run_name(known[r]))
    return run, known[other if other is not None else others[0]]


def kin(a: Row, b: Row, alike: bool) -> None:
    """What may be compared, and on what condition."""
    if not alike:
        panels.reading(
            "These are different models: expert 3 of one has nothing to do with expert 3 of the other. So loads and choices "
            "are not subtracted; what can be compared is the text in both colours, and which layers group tokens alike."
        )
    elif a["weights_sha256"] != b["weights_sha256"]:
        st.caption(
            ":material/info: The weights differ. Experts are compared by number, which means something where one was trained "
            "from the other; where both began at random, only the shared grouping below does."
        )


def data(a: Row, b: Row) -> None:
    """Whether both saw the same: a difference of load between unequal data says little of the routers."""
    n = comparison.overlap(a["run"], b["run"])
    if n["a_shared"] == n["a"] and n["b_shared"] == n["b"]:
        return
    both = (
        f"{share(n[one + '_shared'] / max(n[one], 1))} of the {some(n[one], 'token')} of {one.upper()}" for one in ("a", "b")
    )
    st.caption(
        f":material/warning: The data are not the same: {' and '.join(both)} stand in sequences of both runs. Loads below "
        "are of all tokens of each run, so they differ by the data too; the same tokens are compared under “The same tokens”."
    )


@panels.part
def loads(a: Row, b: Row) -> None:
    """Difference of load by layer and expert."""
    what = pickers.choose_counted(a["run"], b["run"])
    frame, sql, params = comparison.loads(a["run"], b["run"], what)
    layer_maps.show(
        a["run"], frame, "difference", f"Share of {COUNTED[what]}, B minus A", sql, params, name="difference", centre=0,
        format="+.0%", even=True, tooltip=["share_a", "share_b"],
    )  # fmt: skip


@panels.part
def tokens(a: Row, b: Row) -> None:
    """Where the same tokens take other experts."""
    panels.section("The same tokens", f"First choices of tokens that both runs have, over up to {comparison.LIMIT} sequences.")
    if panels.unranked(a) or panels.unranked(b):
        return
    frame, sql, params = comparison.agreement(a["run"], b["run"])
    if frame.empty:
        panels.empty(
            "No token in common", "Trace both models on the same data (the same file, in the same order) to compare tokens."
        )
        return
    frame = pickers.grouped(a["run"], frame)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        chart = charts.lines(
            frame,
            "layer",
            "agreement",
            "stack",
            "low",
            "high",
            chance="chance",
            title="Tokens that kept their first expert",
            subtitle="band: 95 % bootstrap over documents; dashed: chance, from both loads",
            format=".0%",
            tooltip=["tokens", "documents"],
        )
        figures.figure(chart, sql, params, name="agreement")
    with right:
        most, sql, params = comparison.changed(a["run"], b["run"])
        if most.empty:
            panels.empty(
                "No token changed", "Every token that is compared has the same first choice in every layer of both runs."
            )
            return
        found = int(most["found"].iloc[0])
        words = f"{some(found, 'token')} changed in at least one layer" + ("; those in most layers" if found > 1 else "")
        st.caption(f"{words}. Choose one to see its route in run A.")
        shown = most.assign(token_text=most["text"].map(visible))[["token_text", "changed", "layers", "document"]]
        url_state.row(shown, "changed", partial(url_state.to_token, a["run"], most), height=330)
        panels.cut_note(len(most), found, "tokens are listed")
        figures.files(most, sql, params, name="changed")


@panels.part
def texts(a: Row, b: Row, alike: bool) -> None:
    """One sequence in both runs; unlike models have a layer each."""
    if not comparison.shared(a["run"], b["run"]):
        return
    panels.section("Side by side", "The same input in the colours of both runs, of the stack of the layer that is chosen.")
    places = st.columns([1, 3] if alike else [1, 1, 2])
    with places[0]:
        layer = pickers.choose_layer(a["run"])
    other = next((x for x in pickers.layers(b["run"]) if layer and (x.group, x.layer) == (layer.group, layer.layer)), None)
    if not alike:
        with places[1]:
            other = pickers.choose_layer(b["run"], "layer-b", "Layer of run B")
    if layer is None or other is None:
        panels.empty("Run B has no such layer", "Choose another layer.")
        return
    found = {r["a"]: r for r in comparison.shared(a["run"], b["run"], layer.stack, other.stack)}
    with places[-1]:
        many = f"{len(found)}{'+' if len(found) == comparison.SHOWN else ''}"
        picked = url_state.choose(
            f"Sequence ({many})", "sequence", list(found),
            lambda s: clean(f"{found[s]['document']} · {found[s]['label']} · {found[s]['text'] or ''}", 110),
        )  # fmt: skip
    if picked is None:
        panels.empty("No such text in both runs", "Choose a layer of another stack.")
        return
    *sides, route = st.columns([3, 3, 2], gap="medium")
    here = {a["run"]: picked, b["run"]: found[picked]["b"]}
    for column, run, at in zip(sides, (a, b), (layer, other), strict=True):
        with column, st.container(border=True):
            one_text(run, at, here[run["run"]])
    token = url_state.number("token")
    mine = next((run for run in (a, b) if token is not None and sequence_picker.home(run, token) == here[run["run"]]), None)
    with route:
        route_panel.beside((mine or a)["run"], token if mine else None)


def one_text(run: Row, layer: pickers.Layer, sequence: int) -> None:
    """A sequence in the colours of a run's layer."""
    frame, params = token_routes.tokens(sequence, layer)
    st.caption(f"**{panels.plain(pickers.run_name(run))}** · {panels.plain(layer.label)}")
    if frame.empty:
        panels.empty("No token here", "Choose another sequence.")
        return
    size = (int(frame["y"].max()) + 1, int(frame["x"].max()) + 1) if frame["y"].notna().all() else None
    side = f"side-{run['run']}"
    colored_tokens.forget(side)
    data = colored_tokens.data_of(frame, colored_tokens.paint(frame, "first", layer.experts), size=size)
    colored_tokens.show(data, key=side)
    figures.files(
        frame[["token", "position", "text", "experts", "weights"]], token_routes.ROUTES, params, name=side,
        drawing=lambda words: token_sheet.drawn(data, f"{pickers.run_name(run)}, {layer.label}", [words]),
    )  # fmt: skip


def render() -> None:
    """The page."""
    panels.head(
        "Compare",
        "Two runs of one model, of its checkpoints, or of two models on the same inputs.",
        "Kept first choices far above the dashed chance say that routing is the same; low values, that it was learned anew.",
    )
    chosen = choose()
    if chosen is None:
        return
    a, b = chosen
    if bare := [r for r in chosen if not pickers.layers(r["run"])]:
        panels.unrouted(bare[0])
        return
    alike = comparison.alike(a, b)
    kin(a, b, alike)
    for name in ("diff", "grouping") if alike else ("grouping",):
        answers.verdict(name, a, other=b["run"])
    if alike:
        panels.guarded(data, a, b)
        loads(a, b)
        tokens(a, b)
    texts(a, b, alike)
    if alike:
        answers.ask("diff", a, wait=True, other=b["run"])
    answers.ask("grouping", a, wait=True, other=b["run"])


render()
