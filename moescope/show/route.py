"""The route of one token through all layers."""

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pictures import route_svg, wording
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store
from . import token_routes
from .asked import Asked, Row, asking, decided, of, signed, stem, whole

FORWARDS = "select distinct forward from decisions where token = ? order by forward"


def route(
    store: Store | str | Path,
    token: int | None = None,
    *,
    sequence: int | None = None,
    position: int | None = None,
    run: int | None = None,
    forward: int | None = None,
    theme: str = "auto",
) -> Picture:
    """Experts, weights, entropy and margin of a token in every layer; the token by its key, or by sequence and position.

    Of a token that went through several forward passes it is the last, unless `forward` names one. InputError for what the
    store does not have.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        about, here = _token(asked, whole("token", token), sequence, whole("position", position), run)
        passes = [row["forward"] for row in asked.rows(FORWARDS, about["token"])]
        if forward is not None and forward not in passes:
            known = f"{passes[0]} to {passes[-1]}" if passes else "none"
            raise InputError(f"token {about['token']} was not looked at in forward {forward}; it was in: {known}")
        one = forward if forward is not None else passes[-1] if len(passes) > 1 else None
        return _picture(asked, here, about, one, len(passes), theme)


def _token(asked: Asked, token: int | None, sequence: int | None, position: int | None, run: int | None) -> tuple[Row, Row]:
    if token is None:
        row, here = asked.sequence(sequence, run)
        at = position or 0
        found = asked.rows("select token from tokens where sequence = ? and position = ?", row["sequence"], at)
        if not found:
            have = wording.some(row["tokens"] or 0, "token")
            raise InputError(f"sequence {row['sequence']} has no token at position {at}; it has {have}")
        token = found[0]["token"]
    else:
        homes = asked.rows("select run from tokens where token = ?", token)
        here = decided(asked.run(homes[0]["run"] if homes and run is None else run))
    about = token_routes.about(asked.frame, asked.rows, token, here["run"])
    if about is None:
        ends = asked.rows("select min(token) as low, max(token) as high from tokens where run = ?", here["run"])[0]
        have = "it has none" if ends["low"] is None else f"its tokens are {ends['low']} to {ends['high']}"
        raise InputError(f"run {here['run']} has no token {token}; {have}")
    return about, here


def _picture(asked: Asked, run: Row, about: Row, forward: int | None, passes: int, theme: str) -> Picture:
    sql = token_routes.at(token_routes.ROUTE, forward)
    path = asked.frame(sql, about["token"], run["run"])
    sure = asked.rows(token_routes.at(token_routes.SURE, forward), about["token"], run["run"])
    labels = {layer.router: layer.label for layer in asked.layers(run)}
    rows = rows_of(path, {(d["router"], d["iteration"]): d for d in sure}, labels)
    name = wording.visible(about["text"]) if about["text"] is not None else about["unit"]
    title = f"Route of “{name}”"
    place = (
        f"patch {about['y']}, {about['x']}"
        if about["unit"] != "text" and about["y"] is not None
        else f"position {about['position']}"
    )
    notes = [place + (" · generated" if about["generated"] else ""), wording.clean(about["labels"], 200)]
    which = "" if forward is None else f"forward {forward}, one of {passes}"
    words = signed(run, f"token {about['token']}", wording.clean(about["document"], 60), which, f"n = {len(rows)} layers")
    data: dict[str, Any] = {"title": title, "notes": [note for note in notes if note], "rows": rows}
    return Picture(
        title, words, stem(asked, run, f"token-{about['token']}", "route"), [Part("route_table", "routed", data)],
        lambda dark: route_svg.drawn(rows, title, [*data["notes"], words], dark), path, sql, theme, 120 + 26 * len(rows),
    )  # fmt: skip


def rows_of(path: Any, sure: dict[Any, Row], labels: dict[int, str]) -> list[list[Any]]:
    """[layer, its number of experts, [[expert, weight, dropped], ...], entropy, margin] from the first layer to the last."""
    rows = []
    for (router, iteration), group in path.groupby(["router", "iteration"], sort=False):
        about = sure.get((router, iteration), {})
        again = f", iteration {iteration}" if iteration else ""
        triples = zip(group["expert"], token_routes.plain(group["weight"].tolist()), group["dropped"], strict=True)
        chosen = [[int(e), w, bool(gone)] for e, w, gone in triples]
        name = labels.get(int(router), str(router)) + again
        rows.append([name, int(group["experts"].iloc[0]), chosen, about.get("entropy"), about.get("margin")])
    return rows
