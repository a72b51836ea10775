"""Writes a specimen's CARD.md from its recipe, its metrics and a few sentences that no figure can say.

`python -m specimens.card mixtral`; specimens/cards/NAME.md holds the sentences, `{figures}` stands for the tables.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path("moescope/models/specimens")
CARDS = Path("specimens/cards")
LABELS = {
    "domain": "domain",
    "upos_english": "UPOS (law, prose)",
    "class_code": "lexical class (code)",
    "class_maths": "symbol class (maths)",
}


def table(head: list[str], body: list[list[object]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def losses(metrics: dict) -> str:
    """Held-out loss per domain, trained and untrained, in nats a target token."""
    names = list(metrics["trained"]["loss"])
    rows = [[side, *(f"{metrics[side]['loss'][n]:.2f}" for n in names)] for side in ("trained", "untrained")]
    return table(["held-out loss, nats a token", *names], rows)


def loads(metrics: dict) -> str:
    """Load per router."""
    rows = [
        [
            name,
            f"{row['load_entropy']:.2f}",
            row["dead_experts"] or "none",
            f"{100 * row['dropped']:.1f} %",
            " ".join(f"{100 * x:.0f}" for x in row["load"]),
        ]
        for name, row in metrics["trained"]["routers"].items()
    ]
    return table(["router", "load entropy (of 3 bits)", "dead experts", "dropped", "load per expert, %"], rows)


def information(metrics: dict) -> str:
    """I(label; top-1 expert) per router, with the interval, the untrained twin and shuffled labels."""
    rows = []
    for name, row in metrics["trained"]["routers"].items():
        before = metrics["untrained"]["routers"][name]
        rows.append(
            [
                name,
                *(
                    f"**{row[label]['bits']:.2f}** [{row[label]['interval'][0]:.2f}, {row[label]['interval'][1]:.2f}] "
                    f"/ {before[label]['bits']:.2f} / {row[label]['shuffled']:.3f}"
                    for label in LABELS
                ),
            ]
        )
    return table(["router", *LABELS.values()], rows)


def recipe(values: dict) -> str:
    """The recipe as a list."""
    return "\n".join(f"* {key.replace('_', ' ')}: {value}" for key, value in values.items())


def main(name: str) -> None:
    """Fills the card."""
    metrics = json.loads((FOLDER / name / "metrics.json").read_text())
    values = json.loads((FOLDER / name / "recipe.json").read_text())
    figures = "\n\n".join(
        [
            losses(metrics),
            loads(metrics),
            "I(label; top-1 expert) in bits: **trained** [95 % bootstrap over source documents] / untrained twin of the "
            "same seed / labels shuffled (domains over documents, classes over tokens).",
            information(metrics),
        ]
    )
    words = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    (FOLDER / name / "CARD.md").write_text(words.format(figures=figures, recipe=recipe(values)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
