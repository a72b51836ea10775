"""Trees of routers: the weight of every leaf, which is the product of the weights on the way to it."""

from typing import Any

from moescope.app import url_state
from moescope.app.parts import figures, panels, pickers
from moescope.app.queries import store_access

TREES = "select count(*) as routers from routers where run = ? and parent_router is not null"
LEAVES = """
select root as router, array_to_string(path, ' → ') as leaf, count(*) as tokens, sum(weight) as weight,
       sum(weight) / sum(sum(weight)) over (partition by root) as share, avg(weight) as mean
from leaf_weight where run = ? group by root, path order by root, share desc, leaf"""
BIG = 1_000_000  # decisions from which on leaves wait for a click
MANY = 24  # leaves that are drawn; the table has all
Row = dict[str, Any]


@panels.part
def show(run: Row) -> None:
    """A tree at a time; nothing where no router is another's expert."""
    if not store_access.rows(TREES, run["run"])[0]["routers"]:
        return
    panels.section(
        "Leaves of the tree",
        "Routers here are experts of other routers, so the load above is of branches. A leaf is named by the experts on the "
        "way to it, from the root; its weight is their product.",
    )
    big = (run["decisions"] or 0) > BIG
    if big and not url_state.asked("Multiply the weights along the tree", "leaves", big):
        return
    every = store_access.frame(LEAVES, run["run"])
    if every.empty:
        panels.empty("No leaf was reached", "No decision of a root is in this run; trace it to its end.")
        return
    names = pickers.labels(run["run"])
    roots = every["router"].drop_duplicates().tolist()
    root = (url_state.choose("Tree", "tree", roots, lambda r: names.get(r, str(r))) if len(roots) > 1 else None) or roots[0]
    frame = every[every["router"] == root]
    look: dict[str, Any] = {"title": f"Share of weight, {names.get(root, root)}", "chance": 1 / len(frame), "format": ".1%"}
    figures.ranked(frame.head(MANY), "leaf", "share", LEAVES, [run["run"]], name="leaves", **look)
    panels.cut_note(min(len(frame), MANY), len(frame), "leaves are drawn; the table has all")
    figures.table(frame, LEAVES, [run["run"]], name="leaves-table")
