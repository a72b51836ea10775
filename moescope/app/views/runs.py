"""Runs: what is in the store, from which model, data and command; its proof and health; live while a trace grows."""

import json
from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import layer_maps, panels, pickers
from moescope.app.queries import store_access
from moescope.app.wording import clean, count, markup, share

PAGE = {"title": "Runs", "icon": ":material/stacks:", "order": 1, "group": "Look"}
HEALTH = """
select coalesce(sum(dead), 0)::bigint as dead, sum(s.experts)::bigint as experts,
       coalesce(sum(nonfinite), 0)::bigint as nonfinite,
       coalesce(sum(unrouted), 0)::bigint as unrouted, sum(s.decisions)::bigint as decisions,
       sum(dropped_share * s.decisions) / sum(s.decisions) as dropped, avg(load_entropy_bits / nullif(max_bits, 0)) as even,
       count(*) as routers
from router_summary s where s.run = ?"""
LOAD = """
select stack, layer, router, expert, share, assignments, dropped
from expert_load where run = ? order by stack, layer, router, expert"""
TONES = {"complete": "#009E73", "running": "#1F7FC2", "interrupted": "#E69F00"}
Row = dict[str, Any]


def title(run: Row) -> None:
    """Name, state, model and data of a run."""
    size = f"{count(run['parameters'])} parameters" if run["parameters"] else ""
    about = " · ".join(x for x in (run["model_name"], run["family"], size, run["dataset"], run["device"], run["dtype"]) if x)
    tag = f'<span class="ms-tag" style="--tone:{TONES.get(run["status"], "#888")}">{markup(run["status"])}</span>'
    name = markup(clean(run["name"] or run["model_name"], 80))
    st.html(f'<div class="ms-run"><b>{name}</b>{tag}<span>{markup(about)}</span></div>')


def proof(run: Row) -> tuple[str, str, str, str]:
    """What was proved when the tracer was attached: one entry per router (`moescope.proof.Proved`), or nothing."""
    found = json.loads(run["proof"] or "[]")
    if not found:
        return "Proof", "none", "this run was not checked at attach", "warn"
    back = sum(p["identical"] for p in found)
    words = f"layers recomputed to {max(p['error'] for p in found):.0e}; "
    words += "written back bit for bit" if back == len(found) else f"{back} of {len(found)} written back bit for bit"
    return "Proof", f"{len(found)} of {len(found)}", f"routers: {words}", "good" if back == len(found) else "warn"


def health(run: Row) -> list[tuple[str, Any, str, str]]:
    """Figures and warnings of a run."""
    h = store_access.rows(HEALTH, run["run"])[0]
    seconds = run["seconds"] or json.loads(run["progress"] or "{}").get("resume", {}).get("seconds")  # the latter while it runs
    rate = run["tokens"] / seconds if run["tokens"] and seconds else None
    cost = run["trace_seconds"] / run["seconds"] if run["trace_seconds"] is not None and run["seconds"] else None
    dead, bad = h["dead"] or 0, h["nonfinite"] or 0
    speed = (
        "Rate",
        f"{count(rate)}/s" if rate else "–",
        f"tokens; tracing took {share(cost)}" if cost is not None else "tokens",
        "",
    )
    if not pickers.layers(run["run"]):
        return [("Tokens", count(run["tokens"]), "no router, so no decision", ""), speed]
    return [
        ("Decisions", count(run["decisions"]), f"{count(run['tokens'])} tokens × {h['routers']} routers", ""),
        speed,
        (
            "Load evenness",
            share(h["even"]),
            "of the largest entropy, mean of layers",
            "good" if (h["even"] or 0) > 0.9 else "warn",
        ),
        ("Dead experts", f"{dead} of {h['experts']}", "never ran" if dead else "every expert ran", "bad" if dead else "good"),
        ("Dropped", share(h["dropped"]), f"{count(h['unrouted'])} decisions had no expert", "warn" if h["dropped"] else "good"),
        ("Not finite", count(bad), "decisions with NaN or infinite logits", "bad" if bad else "good"),
        proof(run),
    ]


def progress(run: Row) -> None:
    """How far an unfinished run is."""
    if run["status"] == "complete":
        return
    far = json.loads(run["progress"] or "{}")
    unit = "sequences" if "sequences" in far else "forwards"
    done, of = far.get(unit, 0), far.get("total")
    words = f"{count(done)} of {count(of)} {unit}" if of else f"{count(done)} {unit}"
    words = words if far else "the first rows come within seconds"
    if run["status"] == "running":
        st.progress(min(done / of, 1.0) if of else 0.0, f":material/autorenew: Being traced: {words}; this page follows.")
    else:
        panels.empty("This run was cut off", f"{words} are safe. Go on with `moescope trace … --resume`.")


def glance(run: Row) -> None:
    """Load by layer and expert, one picture per stack; a click opens the expert."""
    if not pickers.layers(run["run"]):
        panels.unrouted(run)
        return
    frame = store_access.frame(LOAD, run["run"])
    if frame.empty or not frame["assignments"].sum():
        panels.empty(
            "No decision yet", "Nothing was routed in this run so far; it appears here as soon as the first batch is written."
        )
        return
    layer_maps.show(
        run["run"], frame, "share", "Load of every expert", LOAD, [run["run"]], name=f"load-{run['run']}",
        even=True, tooltip=["assignments", "dropped"], format=".0%",
    )  # fmt: skip


def provenance(run: Row) -> None:
    """Where the run is from."""
    with url_state.opened("Where it is from: command, versions, proof", "from", ":material/history:") as box:
        if not box.open:
            return
        command = json.loads(run["command"] or "[]")
        if command:
            st.code(
                " ".join(map(str, command)) if isinstance(command, list) else str(command), language="bash", wrap_lines=True
            )
        keys = ("uid", "started", "finished", "host", "weights_sha256")
        st.json(
            {k: str(run[k]) for k in keys if run[k]}
            | {k: json.loads(run[k] or "null") for k in ("versions", "capture", "overrides", "proof")},
            expanded=1,
        )


def warnings(run: Row) -> None:
    """What the tracer had to say."""
    for words in json.loads(run["warnings"] or "[]")[:8]:
        st.warning(panels.plain(str(words), 400), icon=":material/warning:")


def render() -> None:
    """All runs as a table, the chosen one in full."""
    panels.head(
        "Runs", "Every trace in this store: what ran, on what, whether the record is sound, and how evenly its experts work."
    )
    known = pickers.runs()
    if not known:
        panels.empty("This store has no run yet", "Trace a model into it: `moescope trace MODEL --data DATA --store STORE`")
        return
    run = pickers.the_run() or known[0]
    if len(known) > 1:
        columns = ["run", "name", "status", "model_name", "family", "dataset", "tokens", "decisions", "seconds", "started"]
        numbers = {c: st.column_config.NumberColumn(format="localized") for c in ("tokens", "decisions")}
        more = {"model_name": "model", "seconds": st.column_config.NumberColumn(format="%.1f")}
        panels.table(store_access.frame(pickers.RUNS)[columns], pickers.RUNS, name="runs", column_config=numbers | more)
    title(run)
    progress(run)
    panels.cards(health(run))
    warnings(run)
    glance(run)
    provenance(run)


render()
