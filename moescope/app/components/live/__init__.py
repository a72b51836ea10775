"""The live view of the page Try it: prompts, tokens that light experts up as they come, two of them side by side.

The browser speaks to /live/… of this server (app/server/live_routes.py) by itself: no token draws the page anew.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from moescope.app.components import drawing
from moescope.pictures import scripts

HERE = Path(__file__).parent
SCRIPTS = ("endpoint", "take", "texts", "map", "expert_menu", "route", "differences", "player", "controls", "live")
STYLES = ("colored_tokens", "heat_map", "route_table")  # of the views beside it, whose looks these are


@st.cache_resource(show_spinner=False)
def sources() -> tuple[str, str]:
    """The script and its style, each of several files."""
    script = scripts.read(*scripts.HELPERS) + "".join((HERE / f"{name}.js").read_text() for name in SCRIPTS)
    return script, scripts.read(*(f"{name}.css" for name in ("element", *STYLES))) + (HERE / "live.css").read_text()


def show(
    data: Mapping[str, Any], key: str, asked: Callable[[dict[str, Any]], None], opened: Callable[[dict[str, Any]], None]
) -> None:
    """Draw it, once: `asked` gets what a prompt that was run can be found again by, `opened` the run to look at."""
    script, css = sources()

    def heard(name: str, tell: Callable[[Any], None]) -> Callable[[], None]:
        return lambda: tell(value) if (value := (st.session_state.get(key) or {}).get(name)) is not None else None

    component = st.components.v2.component("moescope_live", html='<div class="live-page view"></div>', js=script, css=css)
    signed = dict(data) | {"sign": drawing.sign(data)}
    component(data=signed, key=key, on_asked_change=heard("asked", asked), on_opened_change=heard("opened", opened))
