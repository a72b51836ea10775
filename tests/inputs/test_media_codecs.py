"""Films and compressed sound, as PyAV and soundfile decode them; what is cut off or is something else says its row."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from moescope.errors import InputError
from moescope.inputs import read

SIZE = (64, 48)
FRAMES = np.stack([np.full((SIZE[1], SIZE[0], 3), 20 * n, np.uint8) for n in range(6)])
WAVE = (np.sin(np.arange(4000) * 0.05) / 2).astype(np.float32)


def film(form: str, codec: str) -> bytes:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=6)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def sound(form: str) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([WAVE, WAVE], 1), 16000, format=form)
    return buffer.getvalue()


def rows(folder: Path, kind: str, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    (folder / "pairs.jsonl").write_text(f'{{"text": "what is it?", "{kind}": "{name}"}}\n')
    return folder / "pairs.jsonl"


@pytest.mark.parametrize(
    ("ending", "form", "codec"), [("mp4", "mp4", "libx264"), ("mkv", "matroska", "mpeg4"), ("webm", "webm", "libvpx-vp9")]
)
def test_films(tmp_path: Path, ending: str, form: str, codec: str) -> None:
    (medium,) = read(rows(tmp_path, "video", f"a.{ending}", film(form, codec))).examples[0].media
    frames = medium.pixels()
    assert frames.shape == FRAMES.shape
    assert np.abs(frames.astype(int) - FRAMES).max() <= 6
    assert medium.rate == 6.0


@pytest.mark.parametrize(("form", "off"), [("FLAC", 1e-4), ("OGG", 0.05)])
def test_sound(tmp_path: Path, form: str, off: float) -> None:
    (medium,) = read(rows(tmp_path, "audio", f"a.{form.lower()}", sound(form))).examples[0].media
    samples = medium.samples(16000)
    assert samples.shape == WAVE.shape
    assert np.abs(samples - WAVE).max() <= off
    assert abs(len(medium.samples(8000)) - len(WAVE) / 2) <= 1


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_what_is_cut_off(tmp_path: Path, kind: str) -> None:
    data = film("mp4", "libx264") if kind == "video" else sound("FLAC")
    name = "a.mp4" if kind == "video" else "a.flac"
    (medium,) = read(rows(tmp_path, kind, name, data[: len(data) // 2])).examples[0].media
    with pytest.raises(
        InputError, match=r"pairs.jsonl, row 0, \w+ 0 (is no \w+ that \w+ can decode .*: repair it|has no film in it)"
    ):
        medium.pixels() if kind == "video" else medium.samples(16000)


def test_a_film_that_is_sound_alone(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (medium,) = read(rows(tmp_path, "video", "a.mp4", sound("OGG"))).examples[0].media
    with pytest.raises(InputError, match=r"pairs.jsonl, row 0, video 0 has no film in it: it is cut off, or sound alone"):
        medium.pixels()


@pytest.mark.parametrize(
    ("kind", "name", "package", "said"),
    [
        ("video", "a.mp4", "av", "is a film (a.mp4), and PyAV, which decodes films, is not installed: pip install av"),
        ("video", "a.bin", "av", "is no array and no animated picture, and PyAV, which decodes films, is not installed"),
        ("audio", "a.flac", "soundfile", "is no WAV file, and soundfile, which decodes others, is not installed: pip install"),
    ],
)
def test_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, package: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (medium,) = read(rows(tmp_path, kind, name, b"no such thing")).examples[0].media
    with pytest.raises(InputError) as caught:
        medium.pixels() if kind == "video" else medium.samples(16000)
    assert str(caught.value).startswith(f"pairs.jsonl, row 0, {kind} 0 {said}")
