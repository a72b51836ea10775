"""Hugging Face data sets, saved in a folder or named as on the hub."""

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from moescope.errors import InputError
from moescope.inputs import Example, read

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "x": Value("float32")})
ROWS = Dataset.from_dict({"text": ["a", "", "b"], "label": [1, 0, -1], "x": [0.5, 1, 2]}, features=FEATURES)


def refusal(data: str | Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(data, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_saved_data_set(tmp_path: Path) -> None:
    ROWS.save_to_disk(tmp_path / "set")
    data = read(tmp_path / "set")
    assert (data.name, data.kind, data.warnings) == ("set", "text", ("Rows without text skipped: 1 in set.",))
    assert data.examples == (
        Example("set", 0, "set:0", "a", labels={"label": "pos"}),
        Example("set", 2, "set:2", "b", labels={"label": "-1"}),
    )
    assert read(tmp_path / "set", label_columns=["x"], limit=1).examples[0].labels == {"x": "0.5"}
    assert refusal(tmp_path / "set", text_column="body") == (
        "set has no column 'body' (columns: text, label, x): name one with --text-column."
    )
    assert refusal(tmp_path / "set", split="train") == "set has no splits: leave --split train out."


def test_splits(tmp_path: Path) -> None:
    DatasetDict(train=ROWS, test=ROWS.select([2])).save_to_disk(tmp_path / "set")
    assert [e.text for e in read(tmp_path / "set", split="test").examples] == ["b"]
    assert refusal(tmp_path / "set") == "set has the splits train, test: name one with --split."
    assert refusal(tmp_path / "set", split="dev") == (
        "set has no split 'dev' (splits: train, test): name one of them with --split."
    )


def test_images(tmp_path: Path) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    Dataset.from_dict({"image": [pixels, pixels + 1], "label": [0, 1]}, features=features).save_to_disk(tmp_path / "set")
    data = read(tmp_path / "set", limit=1)
    assert (len(data), data.kind) == (1, "image")
    example = data.examples[0]
    assert (example.source, example.row, example.document, example.labels) == ("set", 0, "set:0", {"label": "cat"})
    assert example.image is not None
    assert example.image.tolist() == pixels.tolist()


def test_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    assert "cannot be loaded as a saved data set (" in refusal(tmp_path)


def test_hub_name_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repository: str) -> None:
        raise ConnectionError("no route.\nmore")

    monkeypatch.setattr("moescope.inputs.hub._ask_for", fail)
    assert refusal("nobody/nothing") == (
        "There is no file or folder 'nobody/nothing', and as a data set of the hub it cannot be loaded "
        "(ConnectionError: no route): check the path or the name, or pass a folder written by save_to_disk."
    )


def test_hub_name_gives_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("moescope.inputs.hub._ask_for", lambda repository: None)
    monkeypatch.setattr("datasets.load_dataset", lambda *name: asked.append(name) or DatasetDict(train=ROWS))
    data = read("some/set:en")
    assert asked == [("some/set", "en")]
    assert (data.name, len(data), len(data.sha256)) == ("some/set:en", 2, 64)
    assert data.examples[0] == Example("some/set:en", 0, "some/set:en:0", "a", labels={"label": "pos"})


@pytest.mark.parametrize("path", ["data/prompts.txt", "./nobody/nothing", "", "tests/nothing", "nothing"])
def test_what_looks_like_a_path_is_no_hub_name(path: str) -> None:
    assert refusal(path).startswith(f"There is no file, folder or shipped set {path!r}:")
