"""The route of a token as SVG: the same rows as browser/route_table.js draws."""

from collections.abc import Sequence
from typing import Any

from ..charts import OTHER
from .colored_tokens import colours
from .svg import Drawing, cut, width

NAME, BAR, ROW = 150.0, 440.0, 24.0


def drawn(rows: Sequence[Sequence[Any]], title: str, words: Sequence[str], dark: bool = False) -> str:
    """Rows of [layer, its number of experts, [[expert, weight, dropped], ...], entropy, margin], the last layer on top."""
    drawing = Drawing(780, dark)
    drawing.heading(title, words)
    for x, head in ((14.0, "layer"), (NAME, "experts by weight"), (NAME + BAR + 14, "entropy"), (NAME + BAR + 84, "margin")):
        drawing.text(x, drawing.y + 10, head, 11.5, soft=True)
    drawing.y += 20
    for row in reversed(rows):
        _row(drawing, *row)
        drawing.y += ROW
    return drawing.drawn()


def _row(
    drawing: Drawing,
    name: str,
    known: int,
    experts: list[tuple[int, float | None, bool]],
    entropy: float | None,
    margin: float | None,
) -> None:
    hues = colours([e for e, _, _ in experts], known)
    parts = [(e, w, gone, 1.0 if w is None else max(w, 0.0)) for e, w, gone in experts]
    total, x = sum(part for *_, part in parts) or 1.0, NAME
    drawing.text(14, drawing.y + 15, cut(name, NAME - 24, 12), 12)
    for expert, weight, gone, part in parts:
        wide = BAR * part / total
        drawing.rect(x, drawing.y, wide, 20, hues.get(expert, OTHER))
        words = f"{expert} · {weight:.2f}" if weight is not None and part > 0.25 * total else str(expert)
        if width(words, 11) < wide:
            more = ' text-decoration="line-through"' if gone else ""
            place = f'x="{x + wide / 2:.1f}" y="{drawing.y + 14:.1f}"'
            drawing.pieces.append(f'<text {place} font-size="11" fill="#000" text-anchor="middle"{more}>{words}</text>')
        x += wide
    for across, value, form in ((NAME + BAR + 14, entropy, ".2f"), (NAME + BAR + 84, margin, ".3f")):
        drawing.text(across, drawing.y + 15, "–" if value is None else f"{value:{form}}", 12)
