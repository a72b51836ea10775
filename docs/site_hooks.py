"""What the site takes from the code while it is built: pages of analyses, tables and commands, reports, links outwards."""

import re
from typing import Any

from mkdocs.structure.files import File, Files

LIST = re.compile(r"^((?![*\-|>#\s]|\d+\.).+)\n(?=(?:\* |- |\d+\. ))", re.MULTILINE)  # Python-Markdown wants a line between
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]*)(#[^)]*)?\)")
REPORTS = ("first-report.md", "what-experts-are-for.md", "beyond-text.md", "LOG.md")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made of docstrings and of comments in the schema, and the reports."""
    from pathlib import Path

    made = {"reference/analyses.md": analyses(), "reference/tables.md": tables(), "reference/commands.md": commands()}
    made["reference/importers.md"] = importers()
    root = Path(config["docs_dir"]).parent
    made |= {f"reports/{name}": (root / "reports" / name).read_text("utf-8") for name in REPORTS}
    made["changes.md"] = (root / "CHANGELOG.md").read_text("utf-8")
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for path in (root / "reports" / "figures").rglob("*.*"):
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files that are no part of the site keep their words only."""
    import posixpath

    def kept(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), found[2]))
        return found[0] if files.get_file_from_path(target) else f"{found[1]} (`{target.lstrip('./')}`)"

    markdown = "```".join(LIST.sub(r"\1\n\n", part) if n % 2 == 0 else part for n, part in enumerate(markdown.split("```")))
    return LINK.sub(kept, re.sub(r"\((?:\.\./)+reports/", f"({'../' * page.file.src_uri.count('/')}reports/", markdown))


def commands() -> str:
    """Every command with its help."""
    import click

    from moescope.cli import main

    parts = ["# Commands\n\nAs each says with `--help`. Exit code 0: done; 1: it could not be done; 2: it was asked wrongly.\n"]
    with click.Context(main, info_name="moescope") as top:
        for name in main.list_commands(top):
            command = main.get_command(top, name)
            assert command is not None
            with click.Context(command, info_name=name, parent=top, max_content_width=100, terminal_width=100) as context:
                parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def analyses() -> str:
    """Every analysis: its question, its formulas, sources, nulls and intervals as its file says them."""
    import inspect

    from moescope.discover import modules

    parts = ["# Analyses\n\n`moescope analyze NAME STORE -p OPTION=VALUE`; in Python `analyses.run(NAME, store, run, ...)`.\n"]
    for name, module in sorted(modules("analyses").items()):
        question, _, more = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
        options = [
            f"`{p.name}` ({p.default!r})"
            for p in inspect.signature(module.run).parameters.values()
            if p.default is not p.empty and p.name != "run"
        ]
        said = f"\nOptions: {', '.join(options)}.\n" if options else ""
        parts.append(f"## {name}\n\n{question}\n\n{more}\n{said}")
    return "\n".join(parts)


def importers() -> str:
    """Every importer: what it reads, as its file says it, and its options."""
    import inspect

    from moescope.discover import modules

    parts = [
        "# Importers\n\n`moescope import FORMAT FILE… --store STORE -p OPTION=VALUE`; FORMAT may be left out where a file says "
        "what it is. [How to have each written, what is refused](../engines.md).\n"
    ]
    for name, module in sorted(modules("importers").items()):
        question, _, more = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
        options = "".join(f"* `{key}`: {words}\n" for key, words in getattr(module, "OPTIONS", {}).items())
        said = f"\nOptions:\n\n{options}" if options else ""
        parts.append(f"## {name}\n\n{question}\n\n{more}\n{said}")
    return "\n".join(parts)


def tables() -> str:
    """Every table and view of a store with its columns and their comments."""
    from docs.update_blocks import described

    parts = ["# Tables and views\n\nAs the store itself says them (`comment on`); `moescope info STORE` lists them.\n"]
    for kind, wanted in (("Views", True), ("Tables", False)):
        parts.append(f"## {kind}\n")
        for name, (view, comment, columns) in described().items():
            if view is wanted:
                rows = "\n".join(f"| `{c}` | {t.lower()} | {(w or '').replace('|', chr(92) + '|')} |" for c, t, w in columns)
                parts.append(f"### {name}\n\n{comment}\n\n| column | type | holds |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)
