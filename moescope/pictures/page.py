"""Pages that stand alone: everything is inside, nothing is fetched, text from data is text."""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from . import scripts
from .wording import markup

MARK = '<meta name="generator" content="moescope">'
THEMES = ("auto", "light", "dark")


@dataclass(frozen=True)
class Part:
    """What a component of browser/ draws (`still` where no script runs); or HTML, where it has no name.

    `root` "bare" puts nothing around the HTML.
    """

    name: str = ""
    root: str = ""  # class of the element that it draws in
    data: dict[str, Any] = field(default_factory=dict)
    html: str = ""
    still: str = ""  # SVG


def page(
    title: str, words: str, parts: Sequence[Part], *, signed: str = "", theme: str = "auto", style: str = "", tab: str = ""
) -> str:
    """An HTML page: heading, parts below each other, and at its foot where it is from.

    `style` is CSS of its own; `tab` what the browser calls it, where that is not the title.
    """
    live = [part for part in parts if part.name]
    body, number = [], 0
    for part in parts:
        body.append(_home(part, number))
        number += bool(part.name)
    head = f"<header><h1>{markup(title)}</h1><p>{markup(words, 600)}</p></header>"
    foot = f'<p class="signed">{markup(signed, 600)}</p>' if signed else ""
    script = scripts.script(part.name for part in live) if live else ""
    css = scripts.style(part.name for part in live) + style
    wearing = "" if theme == "auto" else f' data-theme="{escape(theme)}"'
    return (
        f'<!doctype html>\n<html lang="en"{wearing}><head><meta charset="utf-8">{MARK}{_allowed(script)}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{markup(tab or title, 200)}</title>'
        f"<style>{css}</style></head><body><main>{head}{''.join(body)}{foot}</main>"
        + (f"{_told(live)}<script>{script}</script>" if live else "")
        + "</body></html>\n"
    )


def _home(part: Part, number: int) -> str:
    if part.root == "bare":
        return part.html
    if not part.name:
        return f'<div class="part">{part.html}</div>'
    still = (
        f'<noscript><img class="still" alt="" src="{data_url(part.still.encode(), "svg+xml")}"></noscript>'
        if part.still
        else ""
    )
    return f'<div class="part" id="part-{number}"></div>{still}'


def _told(live: Iterable[Part]) -> str:
    """Data of the parts: as JSON in which no tag can end or begin."""
    told = json.dumps([{"name": p.name, "root": p.root, "data": finite(p.data)} for p in live], default=str, allow_nan=False)
    safe = told.replace("<", "\\u003c").replace("&", "\\u0026")
    return f'<script type="application/json" id="parts">{safe}</script>'


def finite(value: Any) -> Any:
    """The same with None for what JSON has no word for: NaN, infinity."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _allowed(script: str) -> str:
    """What the page may do: its own script, its own style, pictures inside it, and nothing else whatever is written in it."""
    sign = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rule = f"default-src 'none'; script-src 'sha256-{sign}'; style-src 'unsafe-inline'; img-src data:"
    return f'<meta http-equiv="Content-Security-Policy" content="{rule}">'


def data_url(content: bytes, kind: str) -> str:
    """A picture as an address: kind "png", "svg+xml"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def framed(html: str, still: str, height: int) -> str:
    """A page for a notebook's cell, in a frame of its own; where frames are taken out, the picture behind it is seen."""
    return (
        f'<div style="position:relative;min-height:{height}px">{still}'
        f'<iframe style="position:relative;width:100%;height:{height}px;border:0;display:block" '
        f'title="moescope" srcdoc="{escape(html, quote=True)}"></iframe></div>'
    )
