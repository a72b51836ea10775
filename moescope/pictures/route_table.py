"""The route of one token as a table in HTML: a row per layer, the last on top; the same on pages and in pictures.

`browser/route_table.js` draws the same rows where a script asks for one token after another; both have `route_table.css`.
"""

from collections.abc import Sequence
from typing import Any

from ..charts import OTHER
from .colored_tokens import colours
from .wording import markup

HEADS = ("layer", "experts by weight", "entropy", "margin")


def drawn(rows: Sequence[Sequence[Any]], others: Sequence[str] = ()) -> str:
    """Rows of [layer, its number of experts, [[expert, weight, dropped], ...], entropy, margin]; `others`: what came next."""
    peak = max([row[3] or 0 for row in rows] + [1e-9])
    more: list[str | None] = [*others] or [None] * len(rows)
    lines = "".join(_line(row, peak, words) for row, words in reversed(list(zip(rows, more, strict=True))))
    heads = "".join(f'<th scope="col">{name}</th>' for name in (*HEADS, *(["next best"] if others else [])))
    return f'<table class="ms-route"><tr>{heads}</tr>{lines}</table>'


def _line(row: Sequence[Any], peak: float, others: str | None) -> str:
    name, known, chosen, entropy, margin = row
    hues = colours([expert for expert, _, _ in chosen], known)
    weights = [1.0 if weight is None else max(weight, 0.0) for _, weight, _ in chosen]
    total = sum(weights) or 1.0
    bars = "".join(
        _piece(one[0], one[1], one[2], 100 * own / total, hues.get(one[0], OTHER))
        for one, own in zip(chosen, weights, strict=True)
    )
    meter = "–" if entropy is None else f'<span class="ms-meter" style="--v:{100 * entropy / peak:.0f}%"></span>{entropy:.2f}'
    cells = [f'<div class="ms-bar">{bars}</div>', meter, "–" if margin is None else f"{margin:.3f}"]
    cells += [] if others is None else [markup(others)]
    return f"<tr><td>{markup(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _piece(expert: int, weight: float | None, dropped: bool, wide: float, colour: str) -> str:
    words = f"{expert} · {weight:.2f}" if weight is not None and wide > 25 else f"{expert}"
    words = words if wide >= 5 * len(str(expert)) else ""  # cut in half it is another number; the tip says it
    said = f"expert {expert}, " + ("no weight" if weight is None else f"weight {weight:.4g}") + (", dropped" if dropped else "")
    gone = ' class="dropped"' if dropped else ""
    return f'<i{gone} style="width:{wide:.1f}%;background:{colour}" title="{said}">{words}</i>'
