"""Run a small ablation from the page: what to take away, how it goes, what came out."""

import shlex
from typing import Any

import streamlit as st

from moescope.app import url_state, wording
from moescope.app.parts import panels, pickers
from moescope.app.parts.ablation import ablation_run
from moescope.app.queries import store_access
from moescope.app.wording import plain

HOW = {"alone": "each alone", "together": "all at once"}
Row = dict[str, Any]


def show(run: Row) -> None:
    """The form, or why there is none; below it, how the last one goes."""
    panels.section("Run a small ablation", "On a shipped model, in a process of its own; the effects go into this store.")
    job = ablation_run.jobs().get(str(store_access.path()))
    if reason := ablation_run.refusal(run, st.get_option("server.address")):
        panels.empty("Not from here", reason)
    else:
        ask(run, job is not None and job.status == "running")
    if job is not None:
        st.fragment(follow, run_every=1.0 if job.status == "running" else None)()


@panels.part
def ask(run: Row, busy: bool) -> None:
    """The form."""
    known = {layer.label: layer for layer in pickers.layers(run["run"])}
    one, two, three = st.columns([1, 1.6, 1.4])
    with one:
        layer = known[url_state.choose("Layer", "of", list(known), default=len(known) // 2) or next(iter(known))]
    spare = layer.experts - (layer.top_k or 1)
    with two:
        first = [0, 1][: max(min(spare, 2), 1)]
        experts = url_state.several("Experts", "take", list(range(layer.experts)), first, max_selections=ablation_run.MOST)
    with three:
        mode = url_state.choose("Instead", "instead", ablation_run.MODES, wording.mode) or ablation_run.MODES[0]
    sizes = [*([0] if (run["tokens"] or 0) <= ablation_run.TOKENS else []), *ablation_run.FEW]
    kinds = sorted(pickers.labels_of(run["run"]))
    one, two, three = st.columns([1, 1.6, 1.4])
    with one:
        few = url_state.choose("Examples", "few", sizes, lambda n: f"{n}, traced first" if n else "those of this run")
    with two:
        by = url_state.several("By group", "groups", [*kinds, "position"], kinds[:1])
    with three:
        alone = url_state.choose("Take away", "how", list(HOW), HOW.__getitem__) != "together"
    together = 1 if alone else len(experts)
    if not experts:
        st.caption("Choose at least one expert.")
        return
    if mode == "route-around" and together > spare:
        st.caption(f"The router chooses {layer.top_k or 'some'} of {layer.experts}: at most {spare} can be taken away at once.")
        return
    commands = ablation_run.steps(run, layer, experts, mode, alone, by, few or 0)
    st.code("\n".join("moescope " + shlex.join(command) for command in commands), language="bash", wrap_lines=True)
    if st.button("Run it", icon=":material/play_arrow:", type="primary", disabled=busy, key="ablate-go"):
        start(run, commands)


def start(run: Row, commands: list[list[str]]) -> None:
    """Start the commands unless another ablation of this store runs."""
    jobs, store = ablation_run.jobs(), str(store_access.path())
    if store not in jobs or jobs[store].status != "running":
        last = commands[-1]
        baseline = int(last[last.index("--run") + 1]) if "--run" in last else None
        jobs[store] = ablation_run.Job(commands, baseline, run["model_name"]).start()
    st.rerun()


def follow() -> None:
    """How the job goes; drawn every second while it runs."""
    panels.guarded(_follow)


def _follow() -> None:
    job = ablation_run.jobs()[str(store_access.path())]
    if job.status == "running":
        share, words = job.progress()
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.progress(share, plain(words[:1].upper() + words[1:]))
        if right.button("Stop", icon=":material/stop:", key="ablate-stop"):
            job.stop()
        st.session_state["ablation-seen"] = False
        return
    if st.session_state.get("ablation-seen") is False:
        st.session_state["ablation-seen"] = True
        st.rerun()
    _over(job)


def _over(job: ablation_run.Job) -> None:
    if job.status == "done":
        number = job.result()
        st.success(f"Done in {job.seconds:.0f} s; the effects are in run {number}.", icon=":material/check:")
        elsewhere = number is not None and number != (pickers.the_run() or {}).get("run")
        if elsewhere and st.button(f"Show run {number}", icon=":material/arrow_forward:", key="ablate-show"):
            url_state.put("run", number)
            st.rerun()
    elif job.status == "stopped":
        st.info("Stopped; the same command goes on where it stopped.", icon=":material/stop:")
    else:
        said = [line for line in job.said().splitlines() if line.strip()]
        panels.sentence(f"The ablation failed: {said[-1] if said else 'it said nothing'}")
    with st.expander("What the command said", icon=":material/terminal:"):
        st.text("\n".join(job.said().splitlines()[-30:]))
