"""All experts of a layer as cards: load, the tokens and the label that each prefers."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..pictures import expert_sheet, wording
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store
from .asked import Asked, Row, asking, of, signed, stem
from .layers import Layer

LOAD = """
select expert, share, assignments, first, dropped, weight / nullif(assignments, 0) as mean_weight
from expert_load where router = ? order by expert"""
TOKENS = """
with x as (
  select *, sum(assignments) over (partition by vocab_id) as seen, 1.96 as z from vocab_load where run = ? and router = ?)
select expert, coalesce(text, '#' || vocab_id) as text, assignments, seen, share, share / nullif(overall, 0) as lift
from x where assignments > 1
qualify row_number() over (partition by expert order by (share + z * z / (2 * seen)
  - z * sqrt(greatest(share * (1 - share), 0) / seen + z * z / (4 * seen * seen))) / (1 + z * z / seen) desc, vocab_id) <= 6
order by expert, lift desc, text"""
KINDS = 60  # a kind with more labels names things one by one, such as lemmas
LABELS = f"""
select expert, kind, label, assignments, share, share / nullif(overall, 0) as lift
from (select expert, kind, label, assignments, share, overall from label_load where run = $1 and router = $2
      union all select expert, kind, label, assignments, share, overall from token_label_load where run = $1 and router = $2)
where kind not in ('frame', 'predicted_id') and assignments >= 20 and kind in (
  select kind from (select kind, label from label_load where router = $2 union select kind, label from token_labels
    join tokens using (token) where run = $1) group by kind having count(*) <= {KINDS})
qualify row_number() over (partition by expert order by lift desc, kind, label) = 1 order by expert"""


def experts(
    store: Store | str | Path, layer: int | str | None = None, *, run: int | None = None, theme: str = "auto"
) -> Picture:
    """A card for every expert of `layer` (the middle one): its load from 0 to 2 × even, the tokens that come to it more than
    others do (by the lower 95 % bound of Wilson), and the label with the largest lift of at least 20 assignments.

    Shares are of the assignments that ran; lift is how many times likelier than any token. InputError for what is not there.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = asked.run(run)
        at = asked.layer(here, layer)
        frame = _frame(asked, here, at)
        cards = [_card(row, at) for row in frame.to_dict("records")]
        title, ran = f"Experts of {at.label}", int(frame["assignments"].sum())
        words = signed(
            here, f"{at.experts} experts", f"even load {wording.share(at.even)}", f"n = {ran:,} assignments that ran"
        )
        data = {"even": at.even, "experts": cards}
        return Picture(
            title, words, stem(asked, here, at.label, "experts"), [Part("expert_cards", "experts", data)],
            lambda dark: expert_sheet.drawn(cards, at.even, title, [words], dark), frame, LOAD, theme,
            160 + 130 * -(-at.experts // 4),
        )  # fmt: skip


def _frame(asked: Asked, run: Row, layer: Layer) -> pd.DataFrame:
    """One row per expert: LOAD, its tokens as a list of (text, lift), its label with share and lift."""
    frame = asked.frame(LOAD, layer.router)
    tokens = asked.frame(TOKENS, run["run"], layer.router)
    best = asked.frame(LABELS, run["run"], layer.router).set_index("expert")
    lists: dict[Any, list[tuple[str, float]]] = {
        expert: list(zip(some["text"], some["lift"], strict=True)) for expert, some in tokens.groupby("expert")
    }
    frame = frame.assign(tokens=[lists.get(expert, []) for expert in frame["expert"]])
    names = {expert: f"{kind} {label}" for expert, kind, label in zip(best.index, best["kind"], best["label"], strict=True)}
    return frame.assign(
        label=[names.get(expert) for expert in frame["expert"]],
        label_share=frame["expert"].map(best["share"]), lift=frame["expert"].map(best["lift"]),
    )  # fmt: skip


def _card(row: Row, layer: Layer) -> Row:
    ran = int(row["assignments"])
    says = _says(row, ran)
    label = wording.clean(row["label"], 60) if isinstance(row["label"], str) else None
    return {
        "expert": int(row["expert"]), "share": _number(row["share"]), "says": says, "label": label,
        "label_share": _number(row["label_share"]), "lift": _number(row["lift"]),
        "tokens": [[wording.visible(text), float(lift)] for text, lift in row["tokens"]],
    }  # fmt: skip


def _says(row: Row, ran: int) -> str:
    if not ran:
        return "never ran"
    return f"{wording.share(row['share'])} of the load, {wording.share(row['first'] / ran)} of it first"


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
