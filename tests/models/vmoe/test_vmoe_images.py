"""Image preparation against sums done by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moescope.errors import InputError
from moescope.models.vmoe.config import VMoEConfig
from moescope.models.vmoe.images import area, bilinear, prepare


def config(side: int | None, channels: int = 3) -> VMoEConfig:
    shape = {"num_classes": 2, "patch_size": [2, 2], "hidden_size": 8, "channels": channels}
    size = None if side is None else [side, side]
    return VMoEConfig.from_dict({**shape, "image_size": size, "encoder": {"num_layers": 1, "mlp_dim": 8, "num_heads": 2}})


def test_values_run_from_minus_one_to_one() -> None:
    image = np.array([[0, 255], [51, 204]], np.uint8)
    found = prepare([image], config(2, 1))
    assert (found.shape, found.dtype) == ((1, 1, 2, 2), np.float32)
    np.testing.assert_allclose(found[0, 0], [[-1, 1], [-0.6, 0.6]], atol=1e-6)


def test_gray_is_repeated_and_colour_becomes_gray() -> None:
    gray = prepare([np.full((2, 2), 51, np.uint8)], config(2))
    np.testing.assert_allclose(gray, np.full((1, 3, 2, 2), -0.6), atol=1e-6)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    expected = 76 / 255 * 2 - 1  # ITU-R 601: 0.299 of red
    np.testing.assert_allclose(prepare([red], config(2, 1)), np.full((1, 1, 2, 2), expected), atol=1e-6)
    assert prepare([red], config(2))[0, :, 0, 0].tolist() == [1, -1, -1]


def test_bilinear_weights() -> None:
    np.testing.assert_allclose(bilinear(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(bilinear(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    # 6 to 2 looks at pixels 1 and 4 only: there is no antialiasing
    np.testing.assert_allclose(bilinear(6, 2), [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]])


def test_area_weights() -> None:
    np.testing.assert_allclose(area(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(area(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(area(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])


def test_stretching_rounds_down_to_whole_levels() -> None:
    image = np.array([[0, 3], [0, 3]], np.uint8)
    levels = (prepare([image], config(4, 1))[0, 0, 0] + 1) * 255 / 2
    np.testing.assert_allclose(levels, [0, 0, 2, 3], atol=1e-4)  # 0, 0.75, 2.25, 3


def test_same_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    levels = np.rint((prepare([image], config(6))[0] + 1) * 255 / 2)
    np.testing.assert_array_equal(levels.transpose(1, 2, 0), image)


def test_crop_takes_the_centre() -> None:
    image = np.zeros((16, 32), np.uint8)
    image[:, 12:20] = 255  # a column in the middle
    found = prepare([image], config(14, 1), crop=True)[0, 0]  # 16 x 32 stays, its centre is columns 9 to 22
    assert found.shape == (14, 14)
    assert found[0].tolist() == [-1] * 3 + [1] * 8 + [-1] * 3


def test_files_and_pillow_images(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((5, 5, 3), 255, np.uint8))
    image.save(tmp_path / "white.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    found = prepare([tmp_path / "white.png", str(tmp_path / "alpha.png"), image], config(4))
    np.testing.assert_array_equal(found, np.ones((3, 3, 4, 4), np.float32))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        prepare([tmp_path / "text.png"], config(4))
    with pytest.raises(InputError, match="must be uint8"):
        prepare([np.zeros((4, 4))], config(4))
    with pytest.raises(InputError, match="no image_size"):
        prepare([np.zeros((4, 4), np.uint8)], config(None))
    with pytest.raises(InputError, match="no images"):
        prepare([], config(4))
