"""The pictures and examples of reading-figures.md, from a real run: python -m docs.draw_nulls [STORE] (default: demo.duckdb)

A null is drawn as what it does: the same tokens of the same documents as they were recorded, and after one shuffle. A cell is a
token, its colour the first expert that a router chose for it (or its label); a row is a document.
"""

import sys
from html import escape
from pathlib import Path

import numpy as np

import moescope
from docs.update_blocks import filled
from moescope import analyses, statistics
from moescope.analyses._shared.arrays.decision_sample import Sample, sample
from moescope.analyses._shared.arrays.document_counts import load_sql, tables
from moescope.analyses._shared.scope import Scope, scope
from moescope.charts._palette import CATEGORY, FAINT, INK
from moescope.store import Store

HERE = Path(__file__).parent
ROWS, COLUMNS, CELL = 8, 34, 11  # documents, tokens of each, points
Array = np.ndarray
PALE = ("#BBC3CA", "#7E8B96", "#E3E7EA", "#4E5B66", "#9FB0BE")  # labels, beside the colours of experts


def text(x: float, y: float, said: str, size: int = 11, colour: str = FAINT["light"]) -> str:
    """A line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}">{escape(said)}</text>'


def cells(x: float, y: float, codes: Array, colours: tuple[str, ...], width: float = CELL) -> str:
    """A square per code (rows, columns); one path per colour keeps the file small."""
    made = []
    for code in np.unique(codes[codes >= 0]):
        squares = "".join(f"M{x + c * width:.0f} {y + r * CELL:.0f}h{width - 1:.0f}v{CELL - 1}h-{width - 1:.0f}z"
                          for r, c in np.argwhere(codes == code))  # fmt: skip
        made.append(f'<path fill="{colours[int(code) % len(colours)]}" d="{squares}"/>')
    return "".join(made)


def picture(name: str, width: float, height: float, parts: list[str]) -> None:
    """A file beside the others, on white ground so that it reads in the dark too."""
    style = 'font-family="Source Sans Pro, Helvetica, Arial, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" {style}>'
    path = HERE / "images" / f"null-{name}.svg"
    path.write_text(f'{head}<rect width="100%" height="100%" fill="#FFFFFF"/>{"".join(parts)}</svg>\n')
    print(path, path.stat().st_size)


def pair(name: str, before: tuple[Array, Array], after: tuple[Array, Array], said: str) -> None:
    """Two panels of (labels (rows, 1), experts (rows, columns))."""
    wide, parts = COLUMNS * CELL + 34, []
    for i, (title, (labels, experts)) in enumerate((("as recorded", before), (said, after))):
        x = 8 + i * (wide + 12)
        parts.append(text(x, 18, title, 12, INK["light"]))
        parts += [cells(x, 28, labels, PALE, 18), cells(x + 24, 28, experts, CATEGORY)]
    picture(name, 2 * wide + 20, 36 + ROWS * CELL, parts)


def drawn(taken: Sample, router: int, labels: dict[int, int]) -> tuple[Array, Array, Array, Array]:
    """(rows, 1) labels, (rows, columns) experts, vocabulary ids and documents, of as many labels as there are."""
    frame = taken.tokens
    long = frame.groupby("unit").size()
    of = frame.groupby("unit")["sequence"].first().map(labels)
    units = [unit for _, some in of[long >= COLUMNS].groupby(of) for unit in some.index[:2]][:ROWS]
    rows = np.stack([np.flatnonzero(frame["unit"] == unit)[:COLUMNS] for unit in units])
    named = of.loc[units].to_numpy()[:, None]
    return named, taken.chosen[router][rows, 0], frame["vocab_id"].to_numpy()[rows], rows


def within(experts: Array, groups: Array, seed: int) -> Array:
    """Experts shuffled among cells of equal `groups`."""
    order = next(statistics.orders(groups.ravel(), 1, seed))
    return experts.ravel()[order].reshape(experts.shape)


def shuffles(here: Scope, taken: Sample, router: int, kind: str) -> None:
    """The four nulls that most figures stand beside."""
    known = dict(here.store.rows("select sequence, label from sequence_labels where kind = ?", [kind]))
    code = {name: i for i, name in enumerate(sorted(set(known.values())))}
    labels, experts, ids, _ = drawn(taken, router, {sequence: code[label] for sequence, label in known.items()})
    rng, row = np.random.default_rng(3), np.arange(len(experts))[:, None] + 0 * experts
    renamed = np.stack([rng.permutation(experts.max() + 1)[mine] for mine in experts])
    made: dict[str, tuple[Array, Array, str]] = {
        "labels": (rng.permutation(labels), experts, "labels dealt anew to documents: each keeps its routing"),
        "tokens": (labels, within(experts, row, 1), "tokens shuffled within their document: each keeps its load"),
        "ids": (
            labels,
            within(experts, ids + row * (int(ids.max()) + 1), 2),
            "shuffled among tokens of one id in one document",
        ),
        "numbers": (labels, renamed, "expert numbers shuffled within each document: each stays as narrow"),
    }
    for name, (other, again, said) in made.items():
        pair(name, (labels, experts), (other, again), said)


def histogram(here: Scope, router: int, kind: str) -> None:
    """The figure beside its null: what the label tells of an assignment, and what labels dealt anew tell."""
    table = next(t for t in tables(here, load_sql(here, kind)) if t.where["router"] == router)
    counts, hot = table.counts.sum(1), np.eye(len(table.labels))
    null = np.array([float(statistics.mutual_information(hot[home].T @ counts))
                     for home in statistics.permuted(table.home, 999)])  # fmt: skip
    value, low, high = statistics.over_documents(statistics.mutual_information, table.counts, strata=table.home)
    top = 1.1 * float(high)
    bins, edges = np.histogram(null, bins=24, range=(0, top / 3))
    scale, x0, floor = 560 / top, 24, 150
    wide, tall = scale * (edges[1] - edges[0]) - 1, 110 / bins.max()
    bar = "".join(
        f"M{x0 + scale * a:.1f} {floor}h{wide:.1f}V{floor - tall * n:.1f}h-{wide:.1f}z" for n, a in zip(bins, edges) if n
    )
    at, ends = x0 + scale * float(value), [x0 + scale * float(end) for end in (low, high)]
    ticks = [text(x0 + scale * tick - 8, floor + 16, f"{tick:.1f}") for tick in np.arange(0, top, 0.1)]
    parts = [
        f'<path fill="{PALE[0]}" d="{bar}"/><path stroke="{INK["light"]}" d="M{x0} {floor}H{x0 + scale * top:.0f}"/>', *ticks,
        f'<path stroke="{CATEGORY[5]}" stroke-width="3" d="M{ends[0]:.1f} {floor - 30}H{ends[1]:.1f}"/>',
        f'<circle cx="{at:.1f}" cy="{floor - 30}" r="5" fill="{CATEGORY[5]}"/>',
        text(ends[0] - 150, floor - 44, f"the figure, {float(value):.2f} bits, with its interval", 11, CATEGORY[5]),
        text(x0 + 2, 30, "999 times with labels dealt anew: the null", 11),
        text(x0, floor + 34, f"I({kind}; expert), bits (plug-in)"),
    ]  # fmt: skip
    picture("histogram", 620, floor + 44, parts)


def example(store: Store, run: int, name: str) -> str:
    """An answer of the terminal, as it is printed."""
    from click.testing import CliRunner

    from moescope.cli import main

    said = CliRunner().invoke(main, ["analyze", name, str(store.path), "--run", str(run)]).output
    said = said.replace(str(store.path), "demo.duckdb")
    return f"```\n$ moescope analyze {name} demo.duckdb --run {run}\n{said.rstrip()}\n```"


def main() -> None:
    """Draw, and fill the page's examples."""
    path, page = Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "demo.duckdb"), HERE / "reading-figures.md"
    with moescope.open(path) as store:
        here = scope(store, 0)
        taken = sample(here, [])
        best = analyses.run("specialization", store, 0).figures("I(label; expert) (bits)", estimator="less null mean")
        router = int(best.loc[best["value"].idxmax(), "router"])
        shuffles(here, taken, router, here.kind(None))
        histogram(here, router, here.kind(None))
        written = page.read_text("utf-8")
        for name in ("specialization", "syntax"):
            written = filled(written, name, example(store, 0, name))
        page.write_text(written, "utf-8")


if __name__ == "__main__":
    main()
