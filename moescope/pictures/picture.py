"""A picture that is shown in a notebook, and saved: live in a browser, still as PNG, SVG and PDF."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from ..store.files.outputs import output
from . import page as pages
from .page import Part

KINDS = ("html", "png", "svg", "pdf")


@dataclass
class Picture:
    """What `moescope.show` gives: the last value of a cell shows itself, `save` makes a file of it.

    `frame` has the numbers that are drawn, `sql` the query behind them; `name` says run, layer and expert for files.
    """

    title: str
    words: str  # what is shown: run, layer, how many
    name: str
    parts: Sequence[Part] = field(repr=False)
    still: Callable[[bool], str] = field(repr=False)  # SVG, on dark ground or on light
    frame: pd.DataFrame = field(repr=False)
    sql: str = field(repr=False)
    theme: str = "auto"
    height: int = 420  # pixels, until the browser has measured it

    def to_html(self) -> str:
        """A page by itself, with everything inside it."""
        parts = [*self.parts]
        if parts and parts[0].name:
            parts[0] = Part(**(vars(parts[0]) | {"still": self.to_svg()}))
        return pages.page(self.title, self.words, parts, theme=self.theme)

    def to_svg(self, dark: bool | None = None) -> str:
        """Text of an SVG picture; dark where the theme is, unless said."""
        return self.still(self.theme == "dark" if dark is None else dark)

    def to_png(self, scale: float = 2.0, dark: bool | None = None) -> bytes:
        """Bytes of a PNG picture, `scale` times its size."""
        from ..charts import svg_to_png

        return svg_to_png(self.to_svg(dark), scale)

    def to_pdf(self, dark: bool | None = None) -> bytes:
        """Bytes of a PDF page."""
        from ..charts import svg_to_pdf

        return svg_to_pdf(self.to_svg(dark))

    def save(self, path: str | Path, overwrite: bool = True) -> Path:
        """Write it as the end of the name says: html, png, svg or pdf. InputError for another, and where it cannot be written.

        The file takes its place when it is whole; a store or another DuckDB file is never written over.
        """
        place = Path(path)
        kind = place.suffix.lower().removeprefix(".")
        if kind not in KINDS:
            raise InputError(f"{place} has no ending that says what to write; let its name end in .{', .'.join(KINDS)}")
        with output(place, overwrite, pages.MARK.encode()) as file:
            file.write(self._content(kind))
        return place

    def _content(self, kind: str) -> bytes:
        if kind == "png":
            return self.to_png()
        return self.to_pdf() if kind == "pdf" else (self.to_html() if kind == "html" else self.to_svg()).encode()

    def _small(self) -> bytes:
        """The still picture as a notebook keeps it: of few colours, a tenth of the size."""
        from PIL import Image

        buffer = io.BytesIO()
        plain = Image.open(io.BytesIO(self.to_png(1.0))).convert("RGB")
        plain.quantize(24, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def _repr_html_(self) -> str | None:
        return self._framed(self._small()) if live() else None  # IPython asks for it beside the bundle

    def _framed(self, png: bytes) -> str:
        live = pages.page(self.title, self.words, self.parts, theme=self.theme)
        still = f'<img alt="{pages.markup(self.title)}" style="position:absolute;top:0;left:0;max-width:100%" src="'
        return pages.framed(live, f'{still}{pages.data_url(png, "png")}">', self.height)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Live, and still for what runs no script: GitHub, nbviewer, a PDF of the notebook."""
        png = self._small()
        still = {"image/png": base64.b64encode(png).decode(), "text/plain": repr(self)}
        return still if not live() else {"text/html": self._framed(png), **still}


_live = True


def live(on: bool | None = None) -> bool:
    """Whether notebooks get the live picture beside the still one; `live(False)` keeps them small for a repository."""
    global _live
    _live = _live if on is None else on
    return _live
