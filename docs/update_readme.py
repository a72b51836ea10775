"""Fill the marked blocks of README.md from live output: python -m docs.update_readme [--check] [BLOCK ...]

A block stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; BLOCKS says what goes in. `--check` writes nothing and
exits 1 if a block differs from what is written there.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def families() -> str:
    """The matrix of families, each proved while this runs."""
    from moescope.proof.families import families as rows
    from moescope.proof.table import as_markdown

    return as_markdown(list(rows()))


def commands() -> str:
    """Every command with the first sentence of its help."""
    from moescope.discover import modules

    found = {name: module.command for name, module in sorted(modules("cli").items())}
    lines = [f"| `moescope {name}` | {command.get_short_help_str(limit=200)} |" for name, command in found.items()]
    return "\n".join(["| command | does |", "|---|---|", *lines])


def views() -> str:
    """Every view of a store with its comment."""
    import duckdb

    from moescope.store.schema import create_tables, create_views

    con = duckdb.connect()
    create_tables(con)
    create_views(con)
    found = con.execute(
        "select view_name, comment from duckdb_views() where not internal and comment is not null order by view_name"
    ).fetchall()
    return "\n".join(["| view | holds |", "|---|---|", *(f"| `{name}` | {comment} |" for name, comment in found)])


BLOCKS: dict[str, Callable[[], str]] = {"commands": commands, "families": families, "views": views}


def block(text: str, name: str) -> str | None:
    """What stands between a block's markers; None if it has none."""
    found = re.search(_pattern(name), text, re.DOTALL)
    return None if found is None else found[2].strip("\n")


def filled(text: str, name: str, content: str) -> str:
    """The text with a block's content replaced; a text without its markers comes back as it was."""
    return re.sub(_pattern(name), lambda m: f"{m[1]}\n{content}\n{m[3]}", text, flags=re.DOTALL)


def _pattern(name: str) -> str:
    return rf"(<!-- {name}:begin -->)(.*?)(<!-- {name}:end -->)"


def main(arguments: list[str]) -> int:
    """Fill or check the blocks named, or all that the README marks."""
    check = "--check" in arguments
    chosen = [a for a in arguments if a != "--check"] or list(BLOCKS)
    text = README.read_text("utf-8")
    stale = []
    for name in chosen:
        if block(text, name) is None:
            continue
        content = BLOCKS[name]()
        if block(text, name) != content:
            stale.append(name)
            text = filled(text, name, content)
    if not check:
        README.write_text(text, "utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
