"""All experts of a layer as cards: load, the tokens and the label that each prefers, the effect of losing it."""

from pathlib import Path

from ..pictures import expert_cards as pictures
from ..pictures import expert_svg, wording
from ..pictures.page import THEMES, Part
from ..pictures.picture import Picture
from ..store import Store
from . import expert_cards
from .asked import asking, of, signed, stem


def experts(
    store: Store | str | Path, layer: int | str | None = None, *, run: int | None = None, theme: str = "auto"
) -> Picture:
    """A card for every expert of `layer` (the middle one), as on the dashboard: its load from 0 to 2 × even (where the run
    dropped tokens, what was asked for), the tokens that come to it more than others do (by the lower 95 % bound of Wilson),
    the label that it prefers most surely with its lift and interval (95 % over documents), the effect of losing it.

    InputError for what is not there.
    """
    of("theme", theme, THEMES)
    with asking(store) as asked:
        here = asked.run(run)
        at = asked.layer(here, layer)
        cards = expert_cards.of(asked.frame, here, at)
        title, ran = f"Experts of {at.label}", sum(card.assignments for card in cards)
        words = signed(
            here, f"{at.experts} experts", f"even load {wording.share(at.even)}", f"n = {ran:,} assignments that ran"
        )
        lost = any(card.dropped for card in cards)
        told = [expert_cards.told(card, at.even, lost) for card in cards]
        return Picture(
            title, words, stem(asked, here, at.label, "experts"),
            [Part("expert_cards", "experts", {"html": pictures.drawn(told)})],
            lambda dark: expert_svg.drawn(told, title, [words], dark), expert_cards.table(cards), expert_cards.LOAD, theme,
            160 + 150 * -(-at.experts // 4),
        )  # fmt: skip
