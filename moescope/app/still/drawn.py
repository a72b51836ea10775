"""A page of the dashboard, run without a browser, as one page of HTML."""

import re
from collections.abc import Mapping
from pathlib import Path

from streamlit.testing.v1 import AppTest

from moescope import __version__
from moescope.app import page_list
from moescope.app.parts import panels
from moescope.app.still import elements
from moescope.errors import InputError, StoreError
from moescope.pictures.page import Part, page
from moescope.pictures.wording import clean

MAIN = Path(__file__).parents[1] / "main.py"
SECONDS = 300
HEAD = re.compile(r'<div class="ms-head"><h1>(.*?)</h1><p>(.*?)</p></div>', re.DOTALL)
STYLE = Path(__file__).with_name("still.css").read_text(encoding="utf-8") + panels.CSS


def drawn(name: str, query: Mapping[str, str]) -> str:
    """The page of that name in the state that `query` says, as a link has it.

    InputError where there is no such page, StoreError with its sentence where it has an error to show.
    """
    about = next((page for path, page in page_list.views() if path.stem == name), None)
    if about is None:
        raise InputError(f"the dashboard has no page {name!r}; it has {', '.join(p.stem for p, _ in page_list.views())}")
    test = AppTest.from_file(str(MAIN), default_timeout=SECONDS)
    test.query_params.update(dict(query))
    test.switch_page(f"views/{name}.py")
    test.run()
    if wrong := [*test.exception, *test.error]:
        raise StoreError(f"the page {name} cannot be shown: {clean(elements.plain(str(wrong[0].value)), 400)}")
    state = test.session_state
    whence = str(state["signature"]) if "signature" in state else ""
    words, parts = _headed(elements.parts(test.main))
    title, about_it = str(about["title"]), [Part(html=f'<p class="cap">{words}</p>')] if words else []
    signed = f"{whence} · made by moescope {__version__}"
    return page(title, whence, [*about_it, *parts], signed=signed, style=STYLE, tab=f"{title} · {whence}")


def _headed(parts: list[Part]) -> tuple[str, list[Part]]:
    """The page's own heading taken out of it: what it answers, as HTML, and the rest."""
    for place, part in enumerate(parts):
        if found := HEAD.search(part.html):
            rest = Part(html=HEAD.sub("", part.html))
            return found[2], [*parts[:place], *([rest] if rest.html.strip() else []), *parts[place + 1 :]]
    return "", parts
