"""Tokens of a sequence in the colours of their experts: text and patches, a slider of layers, a click for the route."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..pictures import colored_tokens, token_svg, wording
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store
from . import pixels, token_routes
from .asked import Asked, Row, asking, of, signed, stem, whole
from .experts_of import expert_of
from .layers import Layer

COLOURS = {
    "first": "first expert",
    "expert": "weight of one expert",
    "entropy": "entropy of the decision",
    "margin": "margin of the decision",
}
MOST = 400  # tokens at first
SHOWN = ["token", "position", "text", "experts", "weights", "drops", "entropy", "margin", "labels"]


def tokens(
    store: Store | str | Path,
    sequence: int | None = None,
    layer: int | str | None = None,
    *,
    run: int | None = None,
    colour: str = "first",
    expert: int | None = None,
    token: int | None = None,
    numbers: bool = False,
    begin: int = 0,
    most: int = MOST,
    forward: int | None = None,
    theme: str = "auto",
) -> Picture:
    """Tokens of `sequence` (the first of the newest run), coloured by what `layer` (the middle one) did with each.

    `colour`: first, expert (the weight of `expert`), entropy, margin. `token` is chosen at first. `most` tokens from `begin`
    on are drawn, and it is said where there are more. `forward`: one of several passes over the same tokens, else each
    token's last. InputError for what the store does not have.
    """
    of("colour", colour, tuple(COLOURS)), of("theme", theme, THEMES)
    first, count = whole("begin", begin) or 0, min(whole("most", most) or MOST, 20_000)
    with asking(store) as asked:
        row, here = asked.sequence(sequence, run)
        at = asked.layer(here, layer, row["stack"])
        if colour == "expert":
            expert = expert_of(at, expert)
        texts = token_routes.texts(asked.frame, row["sequence"], first, count)
        return _picture(
            asked, here, row, at, texts, (colour, expert or 0, numbers, whole("token", token), first), forward, theme
        )


def _picture(
    asked: Asked, run: Row, row: Row, at: Layer, texts: pd.DataFrame, how: tuple[str, int, bool, int | None, int],
    forward: int | None, theme: str,
) -> Picture:  # fmt: skip
    colour, expert, numbers, token, first = how
    layers = [layer for layer in asked.layers(run) if layer.stack == at.stack]
    frames = {x.router: token_routes.routed(asked.frame, texts, row["sequence"], x.router, forward) for x in layers}
    frame = frames[at.router]
    base = _base(asked, run, row, frame, numbers, token, f"tokens by {COLOURS[colour]}") if len(frame) else None
    every = asked.rows("select count(*) as n from tokens where sequence = ?", row["sequence"])[0]["n"]
    part = "" if len(texts) == every else f" ({first} to {first + len(texts) - 1} of {every:,})"
    document = wording.clean(row["document"], 60) or f"sequence {row['sequence']}"
    what = f"expert {expert}" if colour == "expert" else COLOURS[colour]
    words = signed(
        run,
        at.label,
        f"sequence {row['sequence']}: {document}",
        "" if forward is None else f"forward {forward}",
        f"n = {len(texts):,} tokens{part}",
    )
    title = f"Tokens by {what}, {at.label}"
    parts = [_part(base, layers, at, frames, colour, expert)] if base else [Part(html="<p>This sequence has no token.</p>")]
    painted = colored_tokens.paint(frame, colour, at.experts, expert) if base else {"legend": []}

    def still(dark: bool) -> str:
        empty: dict[str, Any] = {"mode": "text", "text": [], "ids": [], "panels": []}
        return token_svg.drawn((base or empty) | painted, title, [words], dark)

    name = stem(asked, run, at.label, f"sequence-{row['sequence']}", "tokens", *([f"expert-{expert}"] * (colour == "expert")))
    shown = frame[SHOWN] if base else pd.DataFrame(columns=SHOWN)
    return Picture(title, words, name, parts, still, shown, token_routes.at(token_routes.ROUTES, forward), theme, 460)


def _base(asked: Asked, run: Row, row: Row, frame: pd.DataFrame, numbers: bool, token: int | None, label: str) -> Row:
    """What is the same in all layers."""
    size = (int(row["height"]), int(row["width"])) if row["height"] and row["width"] else None
    image = None
    if size:
        image = pixels.data_url(run["dataset"], row["source_row"]) or pixels.kept_url(asked.rows, row["sequence"])
    plain = frame.assign(entropy=float("nan"), margin=float("nan"))
    return colored_tokens.data_of(
        plain, {}, numbers=numbers, image=image, size=size, selected=token, label=label,
        pictures=None if size else pixels.panels(asked.rows, row["sequence"]),
    )  # fmt: skip


def _part(base: Row, layers: list[Layer], at: Layer, frames: dict[int, pd.DataFrame], colour: str, expert: int) -> Part:
    told = [_told(x, frames[x.router], colour, min(expert, x.experts - 1)) for x in layers]
    return Part("layered_tokens", "layered", {"base": base, "layers": told, "at": layers.index(at)})


def _told(layer: Layer, frame: pd.DataFrame, colour: str, expert: int) -> Row:
    """What differs by layer."""
    sure = [token_routes.plain(list(pair)) for pair in zip(frame["entropy"], frame["margin"], strict=True)]
    about = f"{layer.experts} experts" + (f", top-{layer.top_k}" if layer.top_k else "")
    routes = {"experts": frame["experts"].tolist(), "weights": frame["weights"].tolist(), "dropped": frame["drops"].tolist()}
    painted = colored_tokens.paint(frame, colour, layer.experts, expert)
    return {"name": layer.label, "about": about, "known": layer.experts, "sure": sure} | routes | painted
