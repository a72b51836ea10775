"""Coloured tokens as the browser draws them (browser/colored_tokens.js): plain arrays of routes, colours and legends."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..charts import CATEGORY, OTHER
from . import wording

STRONG, FAINT = 46, 16  # per cent of colour


def colours(experts: Sequence[int | None], known: int) -> dict[int, str]:
    """A colour per expert: each its own up to eight experts, else the seven busiest of what is shown."""
    if known <= len(CATEGORY):
        return {e: CATEGORY[e] for e in range(known)}
    busiest = [e for e, _ in Counter(e for e in experts if e is not None).most_common(len(CATEGORY) - 1)]
    return {e: CATEGORY[i] for i, e in enumerate(sorted(busiest))}


def paint(tokens: pd.DataFrame, by: str, known: int, expert: int = 0) -> dict[str, Any]:
    """Colours, strengths and legend for tokens with their routes; `by` is "first", "expert", "entropy" or "margin"."""
    if by == "first":
        return _by_first(tokens, known)
    if by == "expert":
        shares = [
            dict(zip(es, ws, strict=True)).get(expert) for es, ws in zip(tokens["experts"], tokens["weights"], strict=True)
        ]
        return _by_value([s or 0.0 for s in shares], f"expert {expert}", CATEGORY[expert % len(CATEGORY)], 1.0)
    values = tokens[by].astype(float).fillna(0).clip(lower=0).tolist()
    return _by_value(values, by, CATEGORY[0] if by == "entropy" else CATEGORY[2], max([*values, 1e-9]))


def paint_labels(labels: Sequence[str | None]) -> dict[str, Any]:
    """A colour for each label, the commonest ones where there are many; tokens without one have none."""
    tally = Counter(labels)
    known = [label for label, _ in tally.most_common() if label is not None]
    palette = {label: CATEGORY[i] for i, label in enumerate(sorted(known[: len(CATEGORY) - (len(known) > len(CATEGORY))]))}
    group = ["none" if label is None else label if label in palette else "other" for label in labels]
    return _grouped(group, palette | {"other": OTHER, "none": "transparent"})


def only(painted: dict[str, Any], keep: Sequence[bool]) -> dict[str, Any]:
    """The same with colour for the tokens that are kept alone."""
    count = Counter(group for group, kept in zip(painted["group"], keep, strict=True) if kept)
    legend = [row | ({"n": count[row["expert"]]} if isinstance(row["n"], int) else {}) for row in painted["legend"]]
    return {
        "colour": [c if kept else "transparent" for c, kept in zip(painted["colour"], keep, strict=True)],
        "alpha": [a if kept else 0 for a, kept in zip(painted["alpha"], keep, strict=True)],
        "group": [g if kept else "left out" for g, kept in zip(painted["group"], keep, strict=True)],
        "legend": [row for row in legend if row["n"]],
    }


def paint_depth(depths: Sequence[float], most: int) -> dict[str, Any]:
    """Colours for tokens of some depth (NaN: no router of depth looked at it), the deeper the stronger; with their legend."""
    group = ["not looked at" if d != d else f"depth {int(d)}" for d in depths]
    tally, strength = Counter(group), {f"depth {d}": round(70 * d / max(most, 1)) for d in range(most + 1)}
    legend = [{"expert": g, "colour": _mixed(strength[g]), "n": tally[g]} for g in strength if tally[g]]
    legend += [{"expert": "not looked at", "colour": "transparent", "n": n} for n in [tally["not looked at"]] if n]
    return {
        "colour": [CATEGORY[0]] * len(group),
        "alpha": [strength.get(g, 0) for g in group],
        "group": group,
        "legend": legend,
    }


def _mixed(strength: int) -> str:
    return f"color-mix(in srgb, {CATEGORY[0]} {strength}%, transparent)"


def _by_first(tokens: pd.DataFrame, known: int) -> dict[str, Any]:
    first = [es[0] if es else None for es in tokens["experts"]]
    palette = colours(first, known)
    group = ["none" if e is None else f"expert {e}" if e in palette else "other" for e in first]
    return _grouped(group, {f"expert {e}": c for e, c in palette.items()} | {"other": OTHER, "none": "transparent"})


def _grouped(group: list[str], chosen: dict[str, str]) -> dict[str, Any]:
    """Tokens by their group, of which each has its colour."""
    tally = Counter(group)
    legend = [{"expert": g, "colour": chosen[g], "n": tally[g]} for g in chosen if tally[g]]
    return {
        "colour": [chosen[g] for g in group],
        "alpha": [STRONG if g != "other" else FAINT for g in group],
        "group": group,
        "legend": legend,
    }


def _by_value(values: list[float], name: str, colour: str, top: float) -> dict[str, Any]:
    group = [name if v > 0 else "none" for v in values]
    legend = [{"expert": name, "colour": colour, "n": f"0 – {top:.3g}"}]
    return {
        "colour": [colour] * len(values),
        "alpha": [round(min(v / top, 1) * 70) for v in values],
        "group": group,
        "legend": legend,
    }


def _notes(row: Any) -> list[str]:
    numbers = [f"{name} {value:.3f}" for name, value in (("entropy", row.entropy), ("margin", row.margin)) if value == value]
    place = (
        f"patch {row.y}, {row.x}" if row.unit in ("patch", "image", "video") and pd.notna(row.y) else f"position {row.position}"
    )
    return [*numbers, wording.clean(row.labels, 120), place + (" · generated" if row.generated else "")]


def data_of(
    tokens: pd.DataFrame,
    colour: dict[str, Any],
    *,
    search: str = "",
    numbers: bool = False,
    image: str | None = None,
    size: tuple[int, int] | None = None,
    selected: int | None = None,
    pictures: Mapping[tuple[str, int | None, str | None], dict[str, Any]] | None = None,
    label: str = "tokens",
    noun: str = "expert",
) -> dict[str, Any]:
    """What the browser needs, as plain lists; `noun` is what `experts` of the tokens are called.

    `pictures`: those that a text speaks of, by medium, frame and view: their pieces are laid over them.
    """
    grid = size is not None
    x, y, size = _laid(tokens, size, alone=image is None)
    texts = tokens["text"].fillna("").tolist()
    data: dict[str, Any] = {
        "mode": "grid" if grid else "text",
        "label": label,
        "noun": noun,
        "ids": [int(t) for t in tokens["token"]],
        "text": [""] * len(tokens) if grid else [wording.token(t) or "∅" for t in texts],
        "names": [wording.visible(t) or u for t, u in zip(texts, tokens["unit"], strict=True)],
        "breaks": ["\n" in t or "Ċ" in t for t in texts],
        "experts": tokens["experts"].tolist(),
        "weights": tokens["weights"].tolist(),
        "dropped": tokens["drops"].tolist(),
        "made": [bool(g) for g in tokens["generated"]],
        "notes": [[n for n in _notes(r) if n] for r in tokens.itertuples()],
        "hit": [bool(search) and search.lower() in t.lower() for t in texts],
        "numbers": numbers,
        "selected": selected,
        "image": image,
        "height": size[0] if size else None,
        "width": size[1] if size else None,
        "x": x,
        "y": y,
        "panels": list((pictures or {}).values()),
        "panel": _panel(tokens, pictures or {}),
    }
    return data | colour


def _panel(tokens: pd.DataFrame, pictures: Mapping[tuple[str, int | None, str | None], Any]) -> list[int | None]:
    """The number of the picture that each token is laid over; None for text, and for pieces whose place nothing says."""
    if not pictures or "medium" not in tokens:
        return [None] * len(tokens)
    number = {key: n for n, key in enumerate(pictures)}
    return [
        number.get((row.medium, None if pd.isna(row.frame) else int(row.frame), None if pd.isna(row.view) else row.view))
        if isinstance(row.medium, str) and pd.notna(row.y)
        else None
        for row in tokens.itertuples()
    ]


def _laid(
    tokens: pd.DataFrame, size: tuple[int, int] | None, alone: bool
) -> tuple[list[int | None], list[int | None], tuple[int, int] | None]:
    """Column and row of every token, and the grid's size; without an image behind it frames lie below each other, then text."""
    x, y = ([None if pd.isna(v) else int(v) for v in tokens[axis]] for axis in ("x", "y"))
    if size is None or not alone:
        return x, y, size
    frames = [0 if pd.isna(f) else int(f) for f in tokens["frame"]] if "frame" in tokens else [0] * len(tokens)
    y = [None if at is None else at + frame * (size[0] + 1) for at, frame in zip(y, frames, strict=True)]
    down = (max(frames, default=0) + 1) * (size[0] + 1) - 1
    text = [n for n, unit in enumerate(tokens["unit"]) if unit == "text" and y[n] is None]
    for place, n in enumerate(text):
        x[n], y[n] = place % size[1], down + 1 + place // size[1]
    return x, y, (down + (1 + -(-len(text) // size[1]) if text else 0), size[1])
