"""Pictures, sound and video beside texts: every container and every form of a cell gives the same pixels and samples."""

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from scipy.io import wavfile

from moescope.errors import InputError
from moescope.inputs import Medium, read
from moescope.inputs import stream as drawn

PIXELS = (np.arange(4 * 6 * 3).reshape(4, 6, 3) * 3).astype(np.uint8)
GREY = PIXELS[..., 0]
WAVE = np.array([0, 8192, -16384, 16384] * 100, np.int16)
RATE = 8000


def png(pixels: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def wav() -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, RATE, WAVE)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, frames=np.stack([PIXELS, PIXELS[::-1]]))
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/a.png").write_bytes(png())
    (tmp_path / "pics/b.png").write_bytes(png(GREY))
    (tmp_path / "s.wav").write_bytes(wav())
    (tmp_path / "v.npz").write_bytes(npz())
    return tmp_path


def told(media: tuple[Medium, ...]) -> list[tuple[str, Any]]:
    """(kind, pixels or samples) as plain lists."""
    return [(m.kind, m.samples(RATE).tolist() if m.kind == "audio" else m.pixels().tolist()) for m in media]


IMAGE, TWO = ("image", PIXELS.tolist()), ("image", np.repeat(GREY[..., None], 3, 2).tolist())
SOUND = ("audio", (WAVE / 32768).astype(np.float32).tolist())
VIDEO = ("video", [PIXELS.tolist(), PIXELS[::-1].tolist()])

CELLS: dict[str, Callable[[Path], tuple[dict[str, Any], list[tuple[str, Any]]]]] = {
    "a path from the data": lambda _: ({"image": "pics/a.png"}, [IMAGE]),
    "a whole path": lambda f: ({"image": str(f / "pics/a.png")}, [IMAGE]),
    "several": lambda _: ({"images": ["pics/a.png", "pics/b.png"]}, [IMAGE, TWO]),
    "one as a list": lambda _: ({"image": ["pics/a.png"]}, [IMAGE]),
    "base64": lambda _: ({"image": "data:image/png;base64," + base64.b64encode(png()).decode()}, [IMAGE]),
    "a dict with a path": lambda _: ({"image": {"path": "pics/a.png", "bytes": None}}, [IMAGE]),
    "sound": lambda _: ({"audio": "s.wav"}, [SOUND]),
    "sound as numbers": lambda _: ({"audio": {"array": (WAVE / 32768).tolist(), "sampling_rate": RATE}}, [SOUND]),
    "a video of arrays": lambda _: ({"video": "v.npz"}, [VIDEO]),
    "everything": lambda _: ({"image": "pics/b.png", "audio": "s.wav", "video": "v.npz"}, [TWO, SOUND, VIDEO]),
    "nothing": lambda _: ({"image": None, "audio": None}, []),
    "an empty name": lambda _: ({"image": ""}, []),
}


@pytest.mark.parametrize("form", CELLS)
def test_cells_of_jsonl(form: str, folder: Path) -> None:
    cells, expected = CELLS[form](folder)
    (folder / "a.jsonl").write_text(json.dumps({"text": "t", "topic": "x", **cells}) + "\n")
    (example,) = read(folder / "a.jsonl").examples
    assert (example.text, dict(example.labels), sorted(told(example.media))) == ("t", {"topic": "x"}, sorted(expected))


MEMORY: dict[str, tuple[dict[str, Any], list[tuple[str, Any]]]] = {
    "an array": ({"image": PIXELS}, [IMAGE]),
    "a grey array": ({"image": GREY}, [TWO]),
    "Pillow": ({"image": Image.fromarray(PIXELS)}, [IMAGE]),
    "bytes": ({"image": png()}, [IMAGE]),
    "samples": ({"audio": WAVE}, [SOUND]),
    "samples and rate": ({"audio": (WAVE, RATE)}, [SOUND]),
    "bytes of sound": ({"audio": {"bytes": wav(), "path": None}}, [SOUND]),
    "frames": ({"video": [PIXELS, PIXELS[::-1]]}, [VIDEO]),
    "frames of Pillow": ({"video": [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]}, [VIDEO]),
    "a video as an array": ({"video": np.stack([PIXELS, PIXELS[::-1]])}, [VIDEO]),
    "two videos": ({"videos": [np.stack([PIXELS, PIXELS[::-1]])] * 2}, [VIDEO, VIDEO]),
}


@pytest.mark.parametrize("form", MEMORY)
def test_cells_in_memory(form: str) -> None:
    cells, expected = MEMORY[form]
    first, again = read([{"text": "t", **cells}]), read([{"text": "t", **cells}])
    assert told(first.examples[0].media) == expected
    assert first.sha256 == again.sha256 != read([{"text": "t"}]).sha256


def as_csv(folder: Path) -> Any:
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "image", "audio"], ["t", "pics/a.png", "s.wav"]])
    return folder / "a.csv"


def as_parquet(folder: Path) -> Any:
    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image(), "audio": datasets.Audio()})
    row = {"text": "t", "image": {"bytes": png(), "path": None}, "audio": {"bytes": wav(), "path": None}}
    table = pa.Table.from_pylist([row], schema=features.arrow_schema)
    pa.parquet.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


def as_shard(folder: Path) -> Any:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, content in (("1.txt", b"t"), ("1.png", png()), ("1.wav", wav())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "a.tar"


def as_dataset(folder: Path) -> Any:
    rows = [{"text": "t", "image": Image.fromarray(PIXELS), "audio": {"bytes": wav(), "path": None}}]
    return datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))


def as_described(folder: Path) -> Any:
    (folder / "more").mkdir()
    (folder / "more/a.png").write_bytes(png())
    (folder / "more/s.wav").write_bytes(wav())
    row = {"file_name": "a.png", "audio_file_name": "s.wav", "text": "t"}
    (folder / "more/metadata.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "more"


HOLDERS: dict[str, Callable[[Path], Any]] = {
    "CSV": as_csv, "Parquet": as_parquet, "WebDataset": as_shard, "a data set": as_dataset, "metadata": as_described,
    "saved": lambda f: (as_dataset(f).save_to_disk(f / "set"), f / "set")[1],
    "columns": lambda f: {"text": ["t"], "image": [PIXELS], "audio": [(WAVE, RATE)]},
    "pandas": lambda f: pd.DataFrame({"text": ["t"], "image": [PIXELS], "audio": [{"bytes": wav()}]}),
    "a streamed data set": lambda f: as_dataset(f).to_iterable_dataset(),
}  # fmt: skip


@pytest.mark.parametrize("reader", [read, drawn])
@pytest.mark.parametrize("holder", HOLDERS)
def test_containers(holder: str, reader: Callable[[Any], Any], folder: Path) -> None:
    (example,) = reader(HOLDERS[holder](folder)).examples
    assert (example.text, told(example.media)) == ("t", [IMAGE, SOUND])
    assert not {"image", "audio", "file_name"} & example.labels.keys()


def test_a_folder_with_a_prompt(folder: Path) -> None:
    (folder / "pics/dog").mkdir()
    (folder / "pics/dog/c.png").write_bytes(png(GREY))
    found = read(folder / "pics", prompt="Describe it.")
    assert found.kind == "text"
    assert [(e.source, e.text, dict(e.labels), told(e.media)) for e in found.examples] == [
        ("a.png", "Describe it.", {}, [IMAGE]), ("b.png", "Describe it.", {}, [TWO]),
        ("dog/c.png", "Describe it.", {"class": "dog"}, [TWO]),
    ]  # fmt: skip
    (folder / "b.jsonl").write_text('{"image": "pics/a.png"}\n{"image": "pics/b.png", "text": "own"}\n')
    assert [e.text for e in read(folder / "b.jsonl", prompt="Say.").examples] == ["Say.", "own"]


def test_columns_may_be_left_alone(folder: Path) -> None:
    (folder / "a.jsonl").write_text('{"text": "t", "image": "pics/a.png", "video": "x"}\n')
    (example,) = read(folder / "a.jsonl", media=False).examples
    assert (example.media, dict(example.labels)) == ((), {"image": "pics/a.png", "video": "x"})
    (example,) = read(folder / "a.jsonl", label_columns=["video"]).examples
    assert ([m.kind for m in example.media], dict(example.labels)) == (["image"], {"video": "x"})


SEE, SAY = {"type": "image"}, {"type": "text", "text": "look"}
TALKS: dict[str, tuple[dict[str, Any], list[Any], int]] = {
    "parts beside a column": ({"messages": [{"role": "user", "content": [SEE, SAY]}], "image": PIXELS}, [SEE, SAY], 1),
    "parts that hold it": ({"messages": [{"role": "user", "content": [{**SEE, "image": PIXELS}, SAY]}]}, [SEE, SAY], 1),
    "OpenAI's": (
        {"messages": [{"role": "user", "content": [SAY, {"type": "image_url", "image_url": {
            "url": "data:image/png;base64," + base64.b64encode(png()).decode()}}]}]},
        [SAY, SEE], 1,
    ),
    "nulls, as tables have them": (
        {"messages": [{"role": "user", "content": [{**SEE, "text": None}, {**SAY, "image": None}]}], "image": PIXELS},
        [SEE, SAY], 1,
    ),
    "words": ({"messages": [{"role": "user", "content": "<image>look"}], "images": [PIXELS]}, [SEE, SAY], 1),
    "ShareGPT's": ({"conversations": [{"from": "human", "value": "<image>look"}], "image": PIXELS}, [SEE, SAY], 1),
    "said by nothing": ({"messages": [{"role": "user", "content": "look"}], "images": [PIXELS] * 2}, [SEE, SEE, SAY], 2),
}  # fmt: skip


@pytest.mark.parametrize("form", TALKS)
def test_conversations(form: str) -> None:
    row, content, count = TALKS[form]
    (example,) = read([row]).examples
    assert [dict(message) for message in example.messages] == [{"role": "user", "content": content}]
    assert told(example.media) == [IMAGE] * count


ROW = "inputs, row 0"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"image": "no.png"}, f"{ROW}, image 0: no.png is not there; paths begin at the folder of the data file"),
    "a folder": ({"image": "/"}, f"{ROW}, image 0: / is a folder; paths begin at the folder of the data file"),
    "an address": (
        {"image": "https://a.b/c.png"},
        f"{ROW}, image 0 is an address (https://a.b/c.png), and nothing is fetched; save it and give its path",
    ),
    "broken": ({"image": png()[:40]}, f"{ROW}, image 0 is not an image that Pillow can read: repair it or leave it out."),
    "no image": ({"image": b"x"}, f"{ROW}, image 0 is not an image that Pillow can read: repair it or leave it out."),
    "zero size": ({"image": PIXELS[:0]}, f"{ROW}, image 0 has no pixels: it is 6 × 0; leave it out"),
    "real numbers": ({"image": PIXELS / 255}, f"{ROW}, image 0 is an array (4, 6, 3) float64; give (H, W) or (H, W, 3) uint8"),
    "a number": ({"image": 3}, f"{ROW}, image 0 is int, of which no image can be made; give a path, bytes or an array"),
    "an empty dict": ({"image": {"a": 1}}, f"{ROW}, image 0 is a dict with a, not with `bytes`, `path` or `array`; give one of "
                      "them"),
    "cut sound": ({"audio": wav()[:30]}, f"{ROW}, audio 0 is no WAV that can be decoded"),
    "no sound": ({"audio": b"x"}, f"{ROW}, audio 0 is no "),
    "silent": ({"audio": np.zeros(0)}, f"{ROW}, audio 0 has no samples; leave it out"),
    "no numbers": ({"audio": np.array([np.nan, 1])}, f"{ROW}, audio 0 holds samples that are no numbers (NaN or infinite)"),
    "no video": ({"video": b"x"}, f"{ROW}, video 0 is no "),
    "frames of two sizes": ({"video": [PIXELS, PIXELS[:2]]}, f"{ROW}, video 0 has frames of 2 sizes (6 × 2, 6 × 4); bring"),
    "broken frames": ({"video": npz()[:100]}, f"{ROW}, video 0 is no array of frames that NumPy can read"),
}  # fmt: skip


@pytest.mark.parametrize("form", BAD)
def test_what_cannot_be_decoded_says_its_row(form: str) -> None:
    cells, said = BAD[form]
    (example,) = read([{"text": "t", **cells}]).examples
    with pytest.raises(InputError) as caught:
        told(example.media)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no text": (
        [{"image": PIXELS}],
        'inputs has media (columns: image) and no text: give reading={"prompt": ...}, which is the text of all rows, or name a '
        'column of texts with reading={"text_column": ...}.',
    ),
    "a row without text": (
        [{"image": PIXELS, "text": "t"}, {"image": PIXELS, "text": None}],
        'inputs, row 1 has images and no text; give one, or reading={"prompt": ...}, which is the text of all such rows',
    ),
    "more words than pictures": (
        [{"messages": [{"role": "user", "content": "<image> <image>"}], "image": PIXELS}],
        "inputs, row 0: its messages speak of more images than there are (1); make them alike",
    ),
    "less words than pictures": (
        [{"messages": [{"role": "user", "content": "<image>"}], "images": [PIXELS] * 2}],
        "inputs, row 0: its messages speak of 1 images and there are 2; make them alike",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_does_not_fit_is_refused(form: str) -> None:
    rows, said = REFUSED[form]
    with pytest.raises(InputError) as caught:
        read(rows)
    assert str(caught.value) == said
    if form != "no text":
        fine = {"text": "fine"} if "text" in rows[0] else {"messages": [{"role": "user", "content": "fine"}]}
        assert len(read([*rows, fine], skip_bad=True).examples) == len(rows)
