"""Images: folders, files, NumPy archives."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moescope.errors import InputError
from moescope.inputs import Dataset, Example, image_shapes, one_shape, read

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3)
RGB = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def rows(data: Dataset) -> list[tuple[object, ...]]:
    return [(e.source, e.row, e.document, e.labels, None if e.image is None else e.image.tolist()) for e in data.examples]


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        list(read(path, **options).examples)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    save(GREY, tmp_path / "photos/cat/a.png")
    save(GREY[:, :2], tmp_path / "photos/cat/b.PNG")
    save(RGB, tmp_path / "photos/dog/c.bmp")
    (tmp_path / "photos/dog/notes.txt").write_text("x")
    return tmp_path / "photos"


def test_folder(photos: Path) -> None:
    data = read(photos)
    assert (data.kind, data.name) == ("image", "photos")
    assert data.warnings == ("Files that are not images skipped: 1 in photos.",)
    assert rows(data) == [
        ("cat/a.png", 0, "cat/a.png", {"class": "cat"}, GREY.tolist()),
        ("cat/b.PNG", 1, "cat/b.PNG", {"class": "cat"}, GREY[:, :2].tolist()),
        ("dog/c.bmp", 2, "dog/c.bmp", {"class": "dog"}, RGB.tolist()),
    ]


def test_limit_takes_from_each_class_in_turn(photos: Path) -> None:
    assert [e.source for e in read(photos, limit=2).examples] == ["cat/a.png", "dog/c.bmp"]
    assert [e.source for e in read(photos, split="dog").examples] == ["c.bmp"]


def test_shapes(photos: Path) -> None:
    assert image_shapes(read(photos)) == {(2, 3): 1, (2, 2): 1, (2, 2, 3): 1}
    with pytest.raises(InputError) as caught:
        one_shape(read(photos))
    assert str(caught.value) == ("photos holds images of 3 shapes, 2×3 (1), 2×2 (1), 2×2×3 (1): bring them to one shape first.")
    assert one_shape(read(photos, limit=1)) == (2, 3)


def test_one_file(photos: Path) -> None:
    assert rows(read(photos / "dog/c.bmp")) == [("c.bmp", 0, "c.bmp", {}, RGB.tolist())]


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (2, 3)), ("P", (2, 3, 3)), ("RGBA", (2, 3, 3)), ("LA", (2, 3, 3)), ("CMYK", (2, 3, 3))]
)
def test_modes_become_grey_or_rgb(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(GREY).convert("RGB").convert(mode).save(path)
    data = read(path)
    (example,) = data.examples
    assert example.image is not None
    assert (example.image.shape, example.image.dtype) == (shape, np.uint8)
    assert one_shape(data) == shape


def test_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    data = read(tmp_path / "a.png")
    assert rows(data)[0][-1] == np.rot90(GREY, -1).tolist()
    assert one_shape(data) == (3, 2)


def test_bad_images(photos: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(photos / "deep.png")
    assert refusal(photos) == "deep.png has I;16 pixels of more than 8 bits: convert it to 8 bits first."
    (photos / "deep.png").unlink()
    (photos / "cat/d.png").write_text("not an image")
    sentence = "cat/d.png is not an image that Pillow can read: repair it or leave it out."
    assert refusal(photos) == sentence
    noise = np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)
    whole = save(noise, photos / "cat/d.png").read_bytes()
    (photos / "cat/d.png").write_bytes(whole[: len(whole) // 2])
    assert refusal(photos) == sentence


def test_npz_images(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.stack([GREY, GREY + 1]), labels=np.array([1, 0]), class_names=np.array(["cat", "dog"]))
    data = read(path)
    assert (data.kind, data.warnings, one_shape(data)) == ("image", (), (2, 3))
    assert rows(data) == [
        ("a.npz", 0, "a.npz:0", {"class": "dog"}, GREY.tolist()),
        ("a.npz", 1, "a.npz:1", {"class": "cat"}, (GREY + 1).tolist()),
    ]
    assert read(tmp_path).examples[0].source == "a.npz"
    assert read(tmp_path).examples[0].labels == {"class": "dog"}


def test_npz_token_ids(tmp_path: Path) -> None:
    ids = np.array([[5, 6, 0], [7, 8, 9]])
    np.savez(tmp_path / "a.npz", input_ids=ids, attention_mask=ids > 0, other=ids)
    data = read(tmp_path / "a.npz")
    assert (data.kind, data.warnings) == ("text", ("Arrays of unknown names skipped: 1 in a.npz.",))
    assert [e.input_ids.tolist() for e in data.examples if e.input_ids is not None] == [[5, 6], [7, 8, 9]]
    assert data.examples[0].text is None


BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "neither": ({"x": GREY}, "a.npz holds the arrays x: give either `images` (N, H, W[, C], uint8) or `input_ids` "
                "(N, T, integers)."),
    "floats": ({"images": np.zeros((1, 2, 2))}, "a.npz: `images` is (1, 2, 2) float64: give (N, H, W) or (N, H, W, C) "
               "uint8."),
    "labels": ({"images": GREY[None], "labels": np.array([1, 2])}, "a.npz: `labels` is (2,) int64: give (1,) integers "
               "or strings."),
    "names": ({"images": GREY[None], "labels": np.array([1]), "class_names": np.array(["cat"])},
              "a.npz: `labels` run from 1 to 1, but there are 1 `class_names`: name every class."),
    "ids": ({"input_ids": np.array([1, 2])}, "a.npz: `input_ids` is (2,) int64: give (N, T) integers, none below 0."),
    "pickle": ({"images": np.array([{}, None])}, "a.npz holds pickled objects, which moescope does not load because "
               "they can run code: save plain arrays of numbers or strings."),
    "none": ({"images": np.zeros((0, 2, 2), np.uint8)}, "a.npz holds nothing to trace: it is empty."),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_npz(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, **BAD[name][0])
    assert refusal(tmp_path / "a.npz") == BAD[name][1]


def test_npz_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    assert refusal(tmp_path / "a.npz").startswith("a.npz is not an .npz archive (")


def test_example_without_image_is_text() -> None:
    assert Example("a", 0, "a").kind == "text"
