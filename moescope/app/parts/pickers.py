"""Which run, layer, domain and expert: the filters that pages share."""

import time
from typing import Any

import pandas as pd
import streamlit as st

from moescope.app import url_state
from moescope.app.queries import store_access
from moescope.app.queries.layers import Layer
from moescope.app.wording import clean
from moescope.show import demand
from moescope.show.layers import ROUTERS, named
from moescope.store.groups import GROUPS

RUNS = """
select r.run, r.uid, r.name, r.status, r.started, r.finished, r.dataset, r.device, r.dtype, r.capture, r.overrides, r.versions,
       r.command, r.host, r.proof, r.warnings, r.progress, r.forwards, r.sequences, r.tokens, r.decisions, r.assignments,
       r.seconds, r.model_seconds, r.trace_seconds, r.model, m.name as model_name, m.family, m.parameters, m.weights_sha256
from runs r left join models m using (model) order by r.run"""
LABELS = "select distinct kind, label from label_rollup where run = ? order by all"
TOKEN_LABELS = """
with n as (
  select l.kind, l.label, count(*) as n from token_labels l join tokens t using (token)
  where t.run = ? and l.label is not null and l.kind not in ('frame', 'predicted_id') group by all)
select kind, list(label order by label) as labels from (
  select * from n qualify row_number() over (partition by kind order by n desc, label) <= 60)
group by kind order by kind <> 'upos', kind"""
Row = dict[str, Any]


def runs() -> list[Row]:
    """Every run of the store."""
    return store_access.rows(RUNS)


def run_name(row: Row) -> str:
    """A run as the lists call it."""
    return f"{row['run']} · {clean(row['name'] or row['model_name'], 40)}"


def the_run() -> Row | None:
    """The run that the sidebar shows: the newest, unless another is asked for."""
    known = runs()
    asked = url_state.get("run")
    return next((r for r in known if str(r["run"]) == asked), known[-1] if known else None)


def shown() -> int | None:
    """The number of that run."""
    run = the_run()
    return None if run is None else int(run["run"])


def choose_run() -> Row | None:
    """The sidebar's run picker, the newest first."""
    known = {r["run"]: r for r in reversed(runs())}
    picked = url_state.choose("Run", "run", list(known), lambda number: run_name(known[number]))
    return None if picked is None else known[picked]


def layers(run: int) -> list[Layer]:
    """The routers of a run, by stack and layer."""
    groups = {row["router"]: row["group"] for row in store_access.rows(GROUPS, run)}
    return named(store_access.rows(ROUTERS, run), groups)


def labels(run: int) -> dict[int, str]:
    """{router: its label}."""
    return {layer.router: layer.label for layer in layers(run)}


def grouped(run: int, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame (with a column `router`) with each router's group as its `stack`: then a layer of a stack is one router."""
    return frame.assign(stack=frame["router"].map({x.router: x.group for x in layers(run)}))


def choose_layer(run: int, key: str = "layer", label: str = "Layer") -> Layer | None:
    """A picker of one router; starts in the middle of the model, where there is most to see."""
    known = {layer.label: layer for layer in layers(run)}
    picked = url_state.choose(label, key, list(known), clean, default=len(known) // 2)
    return None if picked is None else known[picked]


def labels_of(run: int, tokens: bool = False) -> dict[str, list[str]]:
    """Kinds of sequence labels and their values; with `tokens` those of tokens too, the commonest where many."""
    found: dict[str, list[str]] = {}
    for row in store_access.rows(LABELS, run):
        found.setdefault(row["kind"], []).append(row["label"])
    for row in store_access.rows(TOKEN_LABELS, run) if tokens else []:
        found.setdefault(row["kind"], []).extend(row["labels"])
    return found


def choose_label(run: int, what: str = "Domain", tokens: bool = False) -> tuple[str, str] | None:
    """A picker of one value of one label (with `tokens`, of tokens as well), or everything."""
    pairs = [(kind, label) for kind, values in labels_of(run, tokens).items() for label in values]
    names = {f"{kind}={label}": (kind, label) for kind, label in pairs}
    picked = url_state.choose(
        what, "domain", ["", *names], lambda name: clean(name.replace("=", ": ", 1), 40) if name else "everything"
    )
    return names.get(picked or "")


def choose_expert(layer: Layer, key: str = "expert", label: str = "Expert") -> int:
    """A picker of one expert of a layer."""
    return url_state.choose(label, key, list(range(layer.experts)), lambda e: f"expert {e}") or 0


def choose_counted(*runs: int) -> str:
    """A picker of what is counted where capacity dropped tokens in one of the runs, demand first; else what ran."""
    if not any(demand.drops(store_access.frame, run) for run in runs):
        return "ran"
    with st.container(width=320):
        return url_state.choose("Counted", "counted", list(demand.COUNTED), demand.COUNTED.__getitem__) or "asked"


def watch(shown: tuple[Any, ...]) -> None:
    """Draw the whole page again when the store has changed, gone, or come back; looked at often while a run grows."""
    try:
        grows = any(run["status"] == "running" for run in runs())
    except Exception:
        grows = True
    st.fragment(_look, run_every=2.0 if grows else 5.0)(shown)


def _look(shown: tuple[Any, ...]) -> None:
    try:
        state = store_access.held().look()
    except Exception:
        state = ()
    if state != shown and time.monotonic() > st.session_state.get("next-rerun", 0.0):
        st.session_state["next-rerun"] = time.monotonic() + 2
        st.rerun()
