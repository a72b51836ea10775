"""Try it: a prompt or a picture goes through a model while one looks; beside it another, or the same with experts changed."""

from typing import Any

import streamlit as st

from moescope.app import url_state
from moescope.app.components import live
from moescope.app.parts import panels, pickers
from moescope.app.parts.ablation import ablation_run
from moescope.app.queries import pictures
from moescope.app.server.live_model import DEFAULT, NONE, model

PAGE = {"title": "Try it", "icon": ":material/play_circle:", "order": 2.5, "group": "Look"}
PROMPT = "The house on the hill was"
SIDES = ("none", "changed", "other")
SAMPLES = 6
Row = dict[str, Any]


def models(run: Row | None) -> tuple[list[str], str]:
    """Models that can be asked for, as far as it is known before one was asked, and the one to begin with."""
    if model.elsewhere:
        return [""], ""
    known = sorted(ablation_run.specimens())
    named = "" if model.named == NONE else model.named
    names = list(dict.fromkeys([*filter(None, [named]), *known]))
    shown = run["model_name"] if run is not None and run["model_name"] in names else None
    first = named or shown or DEFAULT
    asked = url_state.get("model")
    return names, asked if asked in names else first


def changes(text: str) -> list[list[str]]:
    """What ?change= says: 2:5=off,1:0=forced as pairs."""
    return [[key, how] for part in text.split(",") for key, sep, how in [part.partition("=")] if sep]


def asked(said: Row) -> None:
    """What was run is in the address, so that it can be sent."""
    for key in ("prompt", "model", "beside", "other", "change"):
        value = str(said.get(key) or "")[:2000]
        url_state.put(key, None if value in ("", "none") else value)


def opened(said: Row) -> None:
    """A run that was kept is looked at on the page Tokens."""
    url_state.request_page("tokens", run=int(said["run"]))


@panels.part
def viewer(run: Row | None) -> None:
    """The live view; what it is begun with stays what it was, so that it is drawn once."""
    if "live-begun" not in st.session_state:
        names, first = models(run)
        side = url_state.get("beside")
        st.session_state["live-begun"] = {
            "models": names, "model": first, "prompt": url_state.get("prompt") or PROMPT, "other": url_state.get("other") or "",
            "tokens": 40, "side": side if side in SIDES else "none", "changes": changes(url_state.get("change") or ""),
            "samples": [url for n in range(SAMPLES) if (url := pictures.data_url("fashion-mnist", n))],
        }  # fmt: skip
    live.show(st.session_state["live-begun"], "live", asked, opened)


def render() -> None:
    """The page."""
    panels.head(
        "Try it",
        "Type a sentence and watch the experts light up: every token is routed and recorded as a trace records it.",
        "Cells of the map are experts, rows layers; one lights up when a token goes there, the brighter the more weight. "
        "A click on an expert takes it away, forces it or leans towards it, and the two texts stand side by side.",
    )
    viewer(pickers.the_run())


render()
