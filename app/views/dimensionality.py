"""Dimensionality: how many dimensions the states, the router logits and the routing use."""

import answers
import panels
import pickers

PAGE = {"title": "Dimensionality", "icon": ":material/stacked_line_chart:", "order": 8, "group": "Meaning"}


def render() -> None:
    """The page."""
    panels.head("Dimensionality", "Participation ratios by layer, expert and cycle, each beside its control.")
    run = pickers.the_run()
    if run is None or not pickers.layers(run["run"]):
        panels.empty("Nothing is traced yet", "Trace a model into this store: `moescope trace MODEL --data DATA --store STORE`")
        return
    answers.ask("dimensionality", run)


render()
