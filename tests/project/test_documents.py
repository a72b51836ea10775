"""What the documents and the Makefile name is there: files, folders, modules that are run."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "Makefile",
    *(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]),
]
ROOMS = ("benchmarks", "datasets", "docs", "moescope", "probes", "reports", "specimens", "tests")
ROOM = "|".join(ROOMS)
EXAMPLES = {"build/peers", "my_package/contract.py"}  # made by a target; somebody's own
PATH = re.compile(
    r"(?<![\w./<>$~{}*@:-])((?:\.\./)*[A-Za-z_][\w-]*(?:/[\w.-]+)*(?:/|\.(?:py|md|sql|js|css|toml|ipynb|json)))(?![\w*<{(/-])"
)
FOLDER = re.compile(rf"(?<![\w./<>$~{{}}*@:-])((?:{ROOM})(?:/[\w-]+)+)(?![\w*<{{(/.-])")
MODULE = re.compile(rf"python -m ((?:{ROOM})[\w.]*)")


@cache
def ends() -> set[str]:
    """Every way in which a file or folder can be named: by the last parts of its path."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts] + list(
        ROOT.glob("*.*")
    )
    parts = [path.relative_to(ROOT).parts for path in files] + [(room,) for room in ROOMS]
    return {"/".join(some[n:]) for some in parts for n in range(len(some))}


def lost(document: str, text: str) -> list[str]:
    """What `text` names and is not there; what it writes itself is."""
    written = {titled or output for titled, output in re.findall(r'title="([^"]+)"|-o (\S+)', text)}
    named = {name for name in (*PATH.findall(text), *FOLDER.findall(text)) if name not in EXAMPLES | written}
    modules = {name: name.replace(".", "/") for name in MODULE.findall(text)}
    found = [name for name in named if name.rstrip("/") not in ends() and not (ROOT / document).parent.joinpath(name).exists()]
    return sorted(found + [m for m, path in modules.items() if not {f"{path}.py", f"{path}/__main__.py"} & ends()])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_named_is_there(document: str) -> None:
    assert lost(document, (ROOT / document).read_text("utf-8")) == []


def test_what_is_not_there_is_found() -> None:
    text = "tests/test_words.py, `views/`, moescope/nowhere, python -m benchmarks.run, [x](docs/gone.md), [y](docs/plugin.md)"
    assert lost("README.md", text) == ["benchmarks.run", "docs/gone.md", "moescope/nowhere", "tests/test_words.py"]


@pytest.mark.slow
def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    """No link leads nowhere, every page is in the navigation, and looking at a page asks no other machine."""
    mkdocs = pytest.importorskip("mkdocs.config")
    from mkdocs.commands.build import build

    config = mkdocs.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    build(config)
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^\">]+")
    assert {page.name: found for page in pages if (found := fetched.findall(page.read_text("utf-8")))} == {}
    assert "bits" in (tmp_path / "site" / "reference" / "analyses.html").read_text("utf-8")
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 100_000
