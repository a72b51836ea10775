"""Pages and pictures for `moescope export`: what a copied link asks for, and who draws it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ...errors import InputError, MoescopeError, StoreError
from ...store.remote.addresses import called
from .address import server_file

SECONDS = 600
NUMBERS = ("run", "with", "expert", "sequence", "token")


@dataclass
class Wanted:
    """A page and its state, as a link of the dashboard has it."""

    name: str
    state: dict[str, str] = field(default_factory=dict)
    stem: str = ""  # a name for its file

    @classmethod
    def of(cls, text: str, asked: Mapping[str, Any]) -> "Wanted":
        """What `load`, `load?run=0` or a whole link asks for; options win. InputError for a page that is not there."""
        try:
            parts = urlsplit(text)
            state = dict(parse_qsl(parts.query))
        except ValueError as error:
            raise InputError(f"{text[:80]!r} is no page and no link of the dashboard") from error
        names = sorted(path.stem for path in (server_file().parent / "views").glob("[a-z]*.py"))
        name = parts.path.strip("/").rpartition("/")[2] or ("runs" if parts.netloc else "")
        if name not in names:
            raise InputError(f"the dashboard has no page {name[:80]!r}; it has: {', '.join(names)}")
        return cls(name, state | {key: str(value) for key, value in asked.items() if value is not None})


def settled(store: Path, wanted: Sequence[Wanted]) -> list[Wanted]:
    """The same with layers by their names, and names for files. InputError for what the store does not have."""
    from ...show.asked import Asked, stem
    from .reading import reading

    with reading(store) as opened:
        asked = Asked(opened)
        found = [_settled(asked, page) for page in wanted]
        for page in found:
            number = page.state.get("run")
            where = [
                page.state[key] if key == "layer" else f"{key}-{page.state[key]}"
                for key in ("layer", "expert", "sequence")
                if page.state.get(key)
            ]
            if number is None:
                page.stem = "-".join([f"moescope-{Path(called(store)).stem}", *where, page.name])
            else:
                page.stem = stem(asked, asked.run(int(number)), *where, page.name)
    return found


def _settled(asked: Any, page: Wanted) -> Wanted:
    """The same where all that it names is there; of the newest complete run, where it names none."""
    numbers = {key: _number(key, page.state[key]) for key in NUMBERS if page.state.get(key)}
    row: dict[str, Any] = {"stack": None}
    if "sequence" in numbers:
        row, run = asked.sequence(numbers["sequence"], numbers.get("run"))
    else:
        run = _run(asked, numbers, page.state)
    if "with" in numbers:
        asked.run(numbers["with"])
    if run is None:
        return page
    state = page.state | {"run": str(run["run"])} | _layer(asked, run, row["stack"], page.state.get("layer"), numbers)
    if "token" in numbers and not asked.rows("select 1 from tokens where token = ? and run = ?", numbers["token"], run["run"]):
        raise InputError(f"run {run['run']} of {asked.store.path} has no token {numbers['token']}")
    return Wanted(page.name, state)


def _run(asked: Any, numbers: dict[str, int], state: dict[str, str]) -> Any:
    """The run that is meant; None in a store that has none with a router, where nothing of one is asked for."""
    try:
        return asked.run(numbers.get("run"))
    except InputError:
        if numbers or state.get("layer"):
            raise
        return None


def _layer(asked: Any, run: Any, stack: str | None, given: str | None, numbers: dict[str, int]) -> dict[str, str]:
    """The layer by its name, where one is asked for or an expert of it."""
    from ...show.experts_of import expert_of

    if not given and "expert" not in numbers:
        return {}
    number = given and given.isascii() and given.isdigit() and len(given) < 16
    layer = asked.layer(run, int(given) if given and number else given or None, stack)
    if "expert" in numbers:
        expert_of(layer, numbers["expert"])
    return {"layer": layer.label}


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InputError(f"{key}={text[:80]!r} in a link is no whole number")
    return int(text)


def page(store: Path, wanted: Wanted) -> bytes:
    """The page as HTML, drawn by the dashboard in a process of its own. StoreError with its sentence where it cannot be."""
    paths = os.pathsep.join(filter(None, (str(server_file().parents[2]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "moescope.app.still", str(store.resolve()), wanted.name, urlencode(wanted.state)]
    try:
        done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": paths}, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StoreError(
            f"the page {wanted.name} took longer than {SECONDS} seconds to draw; ask for one layer or one run"
        ) from error
    if done.returncode or not done.stdout.rstrip().endswith(b"</html>"):
        words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise _Refused(words or f"the page {wanted.name} could not be drawn (exit code {done.returncode})", done.returncode)
    return done.stdout


class _Refused(MoescopeError):
    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.exit_code = 2 if code == 2 else 1


def picture(store: Path, wanted: Wanted, name: str, kind: str, dark: bool) -> bytes:
    """The page's picture as PNG, SVG or PDF."""
    from ... import show

    state, takes = (
        wanted.state,
        {"tokens": ("layer", "sequence", "token"), "load": (), "experts": ("layer",), "flow": ("layer",)},
    )
    given: dict[str, Any] = {key: int(state[key]) for key in ("run", "sequence", "token") if state.get(key)} | {
        "layer": state.get("layer")
    }
    options = {key: given.get(key) for key in ("run", *takes[name])}
    if name == "tokens" and state.get("expert"):
        options |= {"colour": "expert", "expert": int(state["expert"])}
    drawn = getattr(show, name)(store, theme="dark" if dark else "light", **options)
    if kind == "svg":
        return drawn.to_svg().encode()
    return drawn.to_png() if kind == "png" else drawn.to_pdf()
