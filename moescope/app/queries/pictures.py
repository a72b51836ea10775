"""The pixels behind patches: the store keeps none, so they are read from the shipped data set, where that was traced."""

import base64
import io
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from moescope import inputs


@st.cache_resource(max_entries=2, show_spinner=False)
def _images(dataset: str) -> np.ndarray | None:
    home = inputs.shipped().get(dataset.rpartition("/")[2])
    if home is None or not (home / "images.npz").is_file():
        return None
    with np.load(home / "images.npz", allow_pickle=False) as archive:
        return np.asarray(archive["images"]) if "images" in archive else None


def data_url(dataset: str | None, row: Any) -> str | None:
    """The image in row `row` of a shipped data set, as a data URL; None where it cannot be had."""
    images = _images(dataset) if dataset else None
    if images is None or row is None or not 0 <= int(row) < len(images):
        return None
    buffer = io.BytesIO()
    Image.fromarray(images[int(row)]).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
