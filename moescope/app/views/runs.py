"""Runs: what is in the store, from which model, data and command; its proof and health; live while a trace grows."""

import json
from functools import partial
from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts import answers, figures, layer_maps, note_field, panels, pickers
from moescope.app.queries import loads, store_access, training_end
from moescope.app.wording import clean, count, markup, share, some

PAGE = {"title": "Runs", "icon": ":material/stacks:", "order": 1, "group": "Look"}
HEALTH = """
select coalesce(sum(dead), 0)::bigint as dead, sum(s.experts)::bigint as experts,
       coalesce(sum(nonfinite), 0)::bigint as nonfinite,
       coalesce(sum(unrouted), 0)::bigint as unrouted, sum(s.decisions)::bigint as decisions,
       sum(dropped_share * s.decisions) / sum(s.decisions) as dropped, avg(load_entropy_bits / nullif(max_bits, 0)) as even,
       count(*) as routers
from router_summary s where s.run = ?"""
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
    unrouted = f"of what was asked; {some(h['unrouted'], 'decision')} had no expert"
    return [
        ("Decisions", count(run["decisions"]), f"{some(run['tokens'], 'token')}, {some(h['routers'], 'router')}", ""),
        speed,
        *(at_end(run["run"], dead) or usual(h, dead)),
        ("Dropped", share(h["dropped"]), unrouted, "warn" if h["dropped"] else "good"),
        ("Not finite", count(bad), "decisions whose logits are no finite numbers", "bad" if bad else "good"),
        proof(run),
    ]


def usual(h: Row, dead: int) -> list[tuple[str, Any, str, str]]:
    """Evenness and dead experts over a whole run."""
    tone = "good" if (h["even"] or 0) > 0.9 else "warn"
    return [
        ("Load evenness", share(h["even"]), "of the largest entropy, mean of layers", tone),
        ("Dead experts", f"{dead} of {h['experts']}", "never ran" if dead else "every expert ran", "bad" if dead else "good"),
    ]  # fmt: skip


def at_end(run: int, never: int) -> list[tuple[str, Any, str, str]]:
    """The same of a training run: over its last steps, since what it did at first says nothing of what it became."""
    ends = training_end.last(run)
    if ends is None:
        return []
    found = training_end.routers(run)
    at = f"in steps {ends[0]}–{ends[1]}" if ends[0] < ends[1] else f"in step {ends[1]}, the last"
    dead, even, lost = int(found["dead"].sum()), float(found["even"].mean()), int(found["collapsed"].sum())
    words = f"{at}; {some(never, 'expert')} never ran at all"
    return [
        (
            "Routing at the end",
            "collapsed" if lost else "holds",
            f"{at}: {lost} of {some(len(found), 'router')} under half of even, or half its experts dead",
            "bad" if lost else "good",
        ),
        (
            "Load evenness at the end",
            share(even),
            f"of the largest entropy, mean of layers, {at}",
            "good" if even > 0.9 else "warn",
        ),
        ("Dead at the end", f"{dead} of {int(found['experts'].sum())}", words, "bad" if dead else "good"),
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
    value, words, frame, sql, params = glanced(run["run"])
    if frame.empty or not frame["asked"].sum():
        panels.empty(
            "No decision yet", "Nothing was routed in this run so far; it appears here as soon as the first batch is written."
        )
        return
    layer_maps.show(
        run["run"], frame, value, words, sql, params, name=f"load-{run['run']}", even=True,
        tooltip=["asked", "assignments", "lost"] if frame["lost"].sum() else ["assignments"], format=".0%",
    )  # fmt: skip


def glanced(run: int) -> tuple[str, str, Any, str, list[Any]]:
    """What the map shows, in words, with its frame: demand where some was dropped, and of a training run its last steps."""
    value = "demand" if loads.drops(run) else "share"
    words = "What was asked of every expert" if value == "demand" else "Load of every expert"
    if training_end.last(run) is not None and (ended := training_end.loads(run))[0]["assignments"].sum():
        return value, f"{words}, at the end of training", *ended
    return value, words, store_access.frame(loads.KEPT, run), loads.KEPT, [run]


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
    known = json.loads(run["warnings"] or "[]")
    for words in known[:8]:
        st.warning(panels.plain(str(words), 400), icon=":material/warning:")
    panels.cut_note(min(len(known), 8), len(known), "warnings are shown")


def to_run(frame: Any, row: int | None) -> None:
    """Look at the run of this row, here and on every other page."""
    if row is not None:
        url_state.request_page("runs", run=int(frame["run"].iloc[row]))


def render() -> None:
    """All runs as a table, the chosen one in full."""
    panels.head(
        "Runs",
        "Every trace in this store: what ran, on what, whether the record is sound, and how evenly its experts work.",
        "Red and orange cards ask to be looked at; in the map, white is an even share, blue less, orange "
        "more, on the same scale for every run.",
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
        frame = store_access.frame(pickers.RUNS)[columns].iloc[::-1]
        here = frame["run"].tolist().index(run["run"])
        st.caption("Choose a row to look at that run; the newest is shown at first.")
        url_state.row(frame, "runs", partial(to_run, frame), here, width="stretch", column_config=numbers | more)
        figures.files(frame, pickers.RUNS, name="runs")
    title(run)
    progress(run)
    panels.cards(health(run))
    warnings(run)
    answers.verdict("load", run)
    glance(run)
    panels.guarded(note_field.listed, str(run["uid"]))
    provenance(run)


render()
