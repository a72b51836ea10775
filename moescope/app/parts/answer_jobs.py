"""Analyses of large runs in processes of their own: a page answers meanwhile, says how long it takes, and can stop them.

`moescope analyze` keeps what it computed where the page then reads it; where nothing is kept, a page computes by itself.
"""

import time
from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.parts.ablation import ablation_run
from moescope.app.queries import store_access
from moescope.app.server import shutdown

LEAST = 100_000  # decisions from which on an analysis is not computed by the page itself
MOST = 1  # at once: the others wait
Row = dict[str, Any]


@st.cache_resource(show_spinner=False)
def jobs() -> dict[str, ablation_run.Job]:
    """By what an answer depends on, the process that computes it, or did."""
    known: dict[str, ablation_run.Job] = {}

    def stop() -> None:
        for job in known.values():
            if job.status == "running":
                job.stop()

    shutdown.last(stop)
    return known


def apart(run: Row) -> bool:
    """Whether analyses of this run are computed in a process of their own."""
    from moescope.analyses._shared.keeping import kept

    large = (run["decisions"] or 0) >= LEAST and run["status"] == "complete"
    return large and url_state.attended and kept.folder() is not None


def over(key: str, name: str, run: Row, options: dict[str, Any]) -> bool:
    """Whether the answer can be read now; else its process is started, or how it goes is shown."""
    job = jobs().get(key)
    if job is not None and job.status in ("done", "failed"):  # a failure is said by asking once more
        return True
    if job is not None and job.status == "stopped":
        st.caption("Stopped.")
        if st.button("Compute it after all", key=f"again-{name}", icon=":material/play_arrow:"):
            jobs().pop(key)
            st.rerun()
        return False
    if job is None and sum(other.status == "running" for other in jobs().values()) < MOST:
        jobs()[key] = ablation_run.Job([command(name, run, options)], None, "").start()
    st.fragment(_follow, run_every=1.0)(key, name)
    return False


def command(name: str, run: Row, options: dict[str, Any]) -> list[str]:
    """Arguments of moescope."""
    said = [part for option, value in sorted(options.items()) for part in ("-p", f"{option}={value}")]
    return ["analyze", name, str(store_access.path()), "--run", str(run["run"]), *said]


def _follow(key: str, name: str) -> None:
    job = jobs().get(key)
    if job is None and sum(other.status == "running" for other in jobs().values()) >= MOST:
        st.caption(":material/hourglass: Waits for another analysis to end.")
        return
    if job is None or job.status != "running":
        st.rerun()
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.caption(f":material/hourglass: Counting, resampling and permuting … {time.monotonic() - job.begun:.0f} s")
    if right.button("Stop", icon=":material/stop:", key=f"stop-{name}"):
        job.stop()
        st.rerun()
