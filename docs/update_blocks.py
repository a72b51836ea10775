"""Fill the marked blocks of README.md and of the pages from live output: python -m docs.update_blocks [--check] [BLOCK ...]

A block stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; BLOCKS says what goes in. `--check` writes nothing and
exits 1 if a block differs from what is written there.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted(Path(__file__).parent.rglob("*.md"))]


def families() -> str:
    """The matrix of families, each proved while this runs."""
    from moescope.proof.families import families as rows
    from moescope.proof.table import as_markdown

    return as_markdown(list(rows()))


def systems() -> str:
    """The table of routing systems, each proved while this runs."""
    from moescope.proof.systems import systems as rows
    from moescope.proof.table import systems_markdown

    return systems_markdown(list(rows()))


def pages() -> str:
    """Every page of the dashboard with what it answers: the first lines of the files."""
    import ast

    said = []
    for path in (README.parent / "moescope" / "app" / "views").glob("[a-z]*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        title, _, words = (ast.get_docstring(tree) or "").partition(": ")
        order = float(path.read_text("utf-8").split('"order": ')[1].split(",")[0])
        said.append((order, f"| {title} | {words.strip()} |"))
    return "\n".join(["| page | shows |", "|---|---|", *(row for _, row in sorted(said))])


def described() -> dict[str, tuple[bool, str, list[tuple[str, str, str]]]]:
    """{table or view of a store: whether it is a view, its comment, (name, type, comment) of its columns}, by name."""
    import duckdb

    from moescope.store.schema import create_tables, create_views

    con = duckdb.connect()
    create_tables(con)
    create_views(con)
    rows = con.execute(
        "select table_name, false, comment from duckdb_tables() where not internal union all "
        "select view_name, true, comment from duckdb_views() where not internal order by 1"
    ).fetchall()
    columns = "select column_name, data_type, comment from duckdb_columns() where table_name = ? order by column_index"
    return {name: (view, comment or "", con.execute(columns, [name]).fetchall()) for name, view, comment in rows}


def views() -> str:
    """Every view of a store with its comment and columns."""
    rows = (
        f"| `{name}` | {comment} | {', '.join(column for column, *_ in columns)} |"
        for name, (view, comment, columns) in described().items()
        if view and comment
    )
    return "\n".join(["| view | holds | columns (each has a comment in the store) |", "|---|---|---|", *rows])


DEMO = Path(__file__).parents[1] / "demo.duckdb"
QUESTIONS = {
    "Which expert is for what? (share of the label's tokens over its share of all)": """
select r.name, layer, expert, label, round(share / overall, 1) as times from label_load l join runs r using (run)
where kind in ('domain', 'class') qualify row_number() over (partition by r.run order by share / overall desc) <= 2""",
    "What does one token's route look like?": """
select r.layer, rank, expert, round(weight, 3) as weight, round(entropy, 2) as entropy
from assignments a join decisions d using (forward, router, iteration, token) join routers r on r.router = a.router
where a.token = 100 order by all""",
}


def demo() -> str:
    """What `make demo` prints and answers, from its store."""
    from rich.console import Console

    from moescope.cli._support.progress import summary
    from moescope.cli.ask.sql import _table
    from moescope.store import open_store

    console = Console(record=True, width=110, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    summary(Path("demo.duckdb"), 0, console)
    parts = ["```", "$ make demo", "...", console.export_text().strip().split("Look at it")[0].rstrip(), "```"]
    with open_store(DEMO) as store:
        for question, query in QUESTIONS.items():
            answer = _table(store.sql(query)).rstrip()
            parts += ["", question, "", "```sql", query.strip(), "```", "```", answer, "```"]
    return "\n".join(parts)


def figures() -> str:
    """The table of `make bench`, with its date, machine and versions."""
    import json

    found = json.loads((DEMO.parent / "benchmarks" / "speed" / "results.json").read_text())
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    lines = [f"`make bench` ({found['machine']}; {versions}). CPU time; ratios are paired."]
    for name, part in found["parts"].items():
        lines += ["", f"| {name}, {part['date']}, load {part['load']:.1f} | value | spread |", "|---|---|---|"]
        for mark in part["marks"]:
            spread = f"{mark['spread'][0]:.3f} … {mark['spread'][1]:.3f}" if mark["spread"] else ""
            lines.append(f"| {mark['mark']} | {mark['value']:.3f} {mark['unit']} | {spread} |")
    return "\n".join(lines)


PEERS_NOTES = (
    "plumb-moe is asked through its hooks and told the true k, because its `Session` imports a module that it does not declare",
    "and its launcher always says 2. TransformerLens: what `hook_expert_indices` shows. In NLLB-MoE other experts run than the",
    "router decides (see Families): moescope counts those that ran, and keeps the decision; others are held to the decision.",
)


def peers() -> str:
    """The tables of `make bench-peers`: who counts right, and what it costs."""
    import json

    found = json.loads((DEMO.parent / "benchmarks" / "peers" / "peers.json").read_text())
    tools = list(found["right"][0]["cells"])
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    lines = [f"`make bench-peers` on {found['date']} ({found['machine']}, load {found['load']:.1f}; {versions}).", ""]
    lines += [f"Not asked: {name} ({why})." for name, why in found["not_asked"].items()]
    lines += [
        "Assignments per expert and layer that each tool reports for 64 tokens (no padding) of ten tiny models, against",
        "hooks on what enters the experts:", "", f"| family | {' | '.join(tools)} |", f"|---|{'---|' * len(tools)}",
    ]  # fmt: skip
    for row in found["right"]:
        cells = [
            ": ".join(cell.split(": ")[:2]) if cell.startswith(("refuses", "fails")) else cell for cell in row["cells"].values()
        ]
        lines.append(f"| {row['family']} | {' | '.join(cells)} |")
    lines += [
        "",
        "CPU time ÷ plain forward, paired round by round (median, quartiles), small Mixtral, 8 × 256 tokens,",
        "one thread; bytes on the disk after 262,144 decisions:",
        "",
    ]
    lines += ["| tool | CPU time | bytes per decision | keeps |", "|---|---|---|---|"]
    for row in found["cost"]:
        median, low, high = row["ratio"]
        size = ", ".join(f"{value:.1f} ({where})" for where, value in (row["bytes_per_decision"] or {}).items())
        lines.append(f"| {row['tool']} | {median:.3f} × [{low:.3f} … {high:.3f}] | {size} | {row['keeps']} |")
    return "\n".join(lines)


def gpu() -> str:
    """The table of `python -m benchmarks.gpu`, or that there is none yet: a rehearsal on a CPU has no figures."""
    import json

    file = DEMO.parent / "benchmarks" / "gpu" / "results.json"
    found = json.loads(file.read_text()) if file.exists() else {"rehearsal": True}
    if found["rehearsal"]:
        return "Not measured on a GPU yet (`python -m benchmarks.gpu` does it in under eight minutes, `--rehearse` on a CPU)."
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    lines = [f"`python -m benchmarks.gpu` on {found['date']} ({found['gpu']}; {found['system']}; {versions})."]
    for name, part in found["sections"].items():
        lines += ["", f"| {name}: {part['ended']}, {part['seconds']:.0f} s | | spread |", "|---|---|---|"]
        for row in part["rows"]:
            value = f"{row['value']:.4g}" if isinstance(row["value"], float) else row["value"]
            spread = f"{row['spread'][0]:.4g} … {row['spread'][1]:.4g}" if row["spread"] else ""
            failed = "**fails:** " if row["good"] is False else ""
            lines.append(f"| {row['what']} | {failed}{value} {row['unit']} | {spread} |")
    return "\n".join(lines)


def quantized() -> str:
    """What each `--quantize` makes of two shipped models on a CPU: loaded while this runs, and said as a store says it."""
    import torch

    from moescope.models.loading import load
    from moescope.models.quantized.said import quantization
    from moescope.models.quantized.ways import WAYS

    lines = ["| `--quantize` | `mixtral`, experts in one parameter a layer | `switch`, experts as modules |", "|---|---|---|"]
    for way, how in WAYS.items():
        if why := how.lacks(torch.device("cpu")):
            lines.append(f"| `{way}` | {why} | |")
            continue
        said = [quantization(load(name, quantize=way, device="cpu").model) for name in ("mixtral", "switch")]
        lines.append(f"| `{way}` | {said[0]} | {said[1]} |")
    return "\n".join(lines)


def memory() -> str:
    """What models that people have take, by calculation."""
    from benchmarks.loading.published import table

    return table()


def calibration() -> str:
    """A sentence of `make calibrate`: in how many worlds without structure an analysis finds some."""
    from benchmarks.calibration.kept import kept

    worlds = list(kept()["worlds"].values())
    names = sorted({name for answers in worlds for name in answers})
    sums = {
        name: [sum(answers[name][what] for answers in worlds if name in answers) for what in ("found", "worlds")]
        for name in names
    }
    said = ", ".join(f"`{name}` {hits} of {n}" for name, (hits, n) in sums.items())
    return f"Worlds of random routers in which an analysis finds anything at q ≤ .05: {said}."


def engines() -> str:
    """What `moescope import` says of responses, one of which cannot be."""
    from docs.engine_example import example

    return example()


def importers() -> str:
    """Formats of other programs."""
    from docs.engine_example import formats

    return formats()


def serving() -> str:
    """What `python -m benchmarks.serving` found of the recorder inside vLLM."""
    import json

    file = DEMO.parent / "benchmarks" / "serving.json"
    if not file.exists():
        return "Not measured yet (`python -m benchmarks.serving`)."
    found = json.loads(file.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    told = {name: "{:.2f} × [{:.2f} … {:.2f}]".format(*found[name]) for name in ("cost", "control", "slower", "slower_control")}
    return "\n".join([
        f"`python -m benchmarks.serving` on {found['date']} ({found['machine']}, load {found['load']:.1f}; {versions}):",
        f"of {found['decisions']:,} decisions of a small random OLMoE, recorded inside the engine, {found['equal']:,} are",
        f"those of a Transformers trace of the same tokens, weights within {found['weights']:.0e}. CPU time of a round with",
        f"the recorder to one without it: {told['cost']}, and without it to one without it: {told['control']}; time on the",
        f"clock {told['slower']} and {told['slower_control']} (median [quartiles] of {found['rounds']} rounds by turns of",
        f"{found['tokens']:,} tokens and {found['seconds']:.1f} CPU seconds, eager).",
    ])  # fmt: skip


LIVE: dict[str, Callable[[], str]] = {  # checked by the tests
    "calibration": calibration,
    "engines": engines,
    "families": families,
    "gpu": gpu,
    "importers": importers,
    "memory": memory,
    "pages": pages,
    "quantized": quantized,
    "serving": serving,
    "systems": systems,
    "views": views,
}
BLOCKS = LIVE | {"demo": demo, "figures": figures, "peers": peers}  # of the last run of each


def block(text: str, name: str) -> str | None:
    """What stands between a block's markers; None if it has none."""
    found = re.search(_pattern(name), text, re.DOTALL)
    return None if found is None else found[2].strip("\n")


def filled(text: str, name: str, content: str) -> str:
    """The text with a block's content replaced; a text without its markers comes back as it was."""
    return re.sub(_pattern(name), lambda m: f"{m[1]}\n{content}\n{m[3]}", text, flags=re.DOTALL)


def _pattern(name: str) -> str:
    return rf"(<!-- {name}:begin -->)(.*?)(<!-- {name}:end -->)"


def places() -> dict[str, list[Path]]:
    """In which pages each block stands; of those that no page marks there is no key."""
    texts = {page: page.read_text("utf-8") for page in PAGES}
    found = {name: [page for page, text in texts.items() if block(text, name) is not None] for name in BLOCKS}
    return {name: pages for name, pages in found.items() if pages}


def main(arguments: list[str]) -> int:
    """Fill or check the blocks named, or all that some page marks."""
    check = "--check" in arguments
    chosen = [a for a in arguments if a != "--check"] or list(BLOCKS)
    stale = []
    for name, pages in places().items():
        if name not in chosen:
            continue
        content = BLOCKS[name]()
        for page in pages:
            text = page.read_text("utf-8")
            if block(text, name) == content:
                continue
            stale.append(f"{name} in {page.name}")
            if not check:
                page.write_text(filled(text, name, content), "utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
