"""The Tokens page of a text with pictures: which tokens are laid over which picture, and what of it a browser gets."""

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from media_families import made
from pages import opened
from PIL import Image

import moescope
from moescope.app.components import colored_tokens
from moescope.app.queries import pictures, store_access

WIDE = (np.indices((24, 40, 3)).sum(0) * 5 % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, processor = made("llava")
    path = tmp_path_factory.mktemp("media") / "a.duckdb"
    moescope.trace(model, [{"text": "see", "images": [WIDE, WIDE[:16, :16]]}, {"text": "none"}], path, processor=processor)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the component is handed."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(colored_tokens.drawing, "show", lambda name, data, *_, **__: found.append(dict(data)))
    return found


def test_pieces_are_laid_over_their_picture(store: Path, drawn: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    opened(store, "tokens", monkeypatch, sequence="0")
    (data,) = [one for one in drawn if "panels" in one]
    names = [(panel["name"], panel["height"], panel["width"]) for panel in data["panels"]]
    assert sorted(names) == [("image 0", 6, 6), ("image 1", 6, 6)]
    which = [None if number is None else data["panels"][number]["name"] for number in data["panel"]]
    assert which == [None] + ["image 0"] * 36 + ["image 1"] * 36 + [None] * 4  # <user>, two pictures, see, </s>
    assert [(data["y"][i], data["x"][i]) for i, name in enumerate(which) if name == "image 1"] == [*np.ndindex(6, 6)]
    for panel in data["panels"]:
        kept = base64.b64decode(panel["image"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(kept)).size == (24, 24)  # as the model sees it: cropped to a square


def test_a_text_alone_has_none(store: Path, drawn: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    opened(store, "tokens", monkeypatch, sequence="1")
    (data,) = [one for one in drawn if "panels" in one]
    assert (data["panels"], set(data["panel"])) == ([], {None})


@pytest.mark.parametrize("bytes_", [b"<svg onload=alert(1)>", b"", b"GIF89a", b"\xff\xd8\xff);evil(", None])
def test_what_a_strangers_store_keeps_stays_data(bytes_: bytes | None, store: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Only PNG and JPEG are handed on, as letters that end no address."""
    path = Path(shutil.copy(store, tmp_path / "stranger.duckdb"))
    with duckdb.connect(str(path)) as con:
        con.execute("update pictures set file = ?", [bytes_])
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    assert store_access.path() == path
    for panel in pictures.panels(0).values():
        assert panel["image"] is None or re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", panel["image"])
