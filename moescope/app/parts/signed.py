"""What every file that leaves the dashboard says of itself: store, run, layer, expert, how many."""

import re
from typing import Any

from moescope.app import url_state
from moescope.app.parts import pickers
from moescope.app.queries import store_access
from moescope.app.wording import clean

Row = dict[str, Any]
PLACES = ("layer", "layer-b", "expert", "sequence", "token")  # of what is chosen, those that a picture is of


def signature(run: Row | None) -> str:
    """A line: which run, what of it, how many tokens and decisions."""
    if run is None:
        return store_access.path().name
    words = [f"run {run['run']}: {clean(run['name'] or run['model_name'], 60)}", *_places()]
    counts = [f"n = {run[what]:,} {what}" for what in ("tokens",) if run[what]]
    counts += [f"{run['decisions']:,} decisions"] if run["decisions"] else []
    return " · ".join([*words, ", ".join(counts), store_access.path().name]).replace(" ·  · ", " · ")


def _places() -> list[str]:
    chosen = url_state.drawn()
    against = [f"against run {chosen['with']}"] if chosen.get("with") else []
    found = [(key, chosen[key]) for key in PLACES if chosen.get(key)]
    return against + [clean(v if k == "layer" else f"{k.replace('-b', ' of B')} {v}", 40) for k, v in found]


def file_name(name: str, kind: str) -> str:
    """As in moescope-demo-run-0-layer-2-expert-3-load.png."""
    run = pickers.the_run()
    where = [] if run is None else [f"run-{run['run']}"]
    chosen = url_state.drawn()
    where += [chosen["layer"]] if chosen.get("layer") else []
    where += [f"expert-{chosen['expert']}"] if chosen.get("expert") else []
    words = "-".join(["moescope", store_access.path().stem, *where, name])
    return re.sub(r"[^\w.-]+", "-", words)[:140] + f".{kind}"
