"""A small picture is the same picture: rendered, it differs nowhere from the one that it is made of."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moescope import charts


def pixels(svg: str) -> np.ndarray:
    """(height, width, 4) of a rendered picture."""
    return np.asarray(Image.open(io.BytesIO(charts.svg_to_png(svg, 1.0))).convert("RGBA"), dtype=int)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (7, 2), (12, 9)])
def test_a_small_picture_looks_the_same(size: tuple[int, int]) -> None:
    """Values of both signs, so that colours are of all kinds."""
    rows, columns = size
    values = np.random.default_rng(rows).normal(size=rows * columns)
    places = {"layer": np.repeat(np.arange(rows), columns), "expert": np.tile(np.arange(columns), rows)}
    chart = charts.heatmap(pd.DataFrame({**places, "value": values}), "expert", "layer", "value", "a map", centre=0.0)
    whole, small = charts.to_svg(chart), charts.to_svg(chart, small=True)
    assert small.count("<rect ") - whole.count("<rect ") >= rows * columns
    assert "aria-label" in whole
    assert "aria-label" not in small
    assert np.abs(pixels(whole) - pixels(small)).max() <= 8  # places are of a hundredth of a point
