"""Small models whose trained weights are shipped: they load, are what the file says, and are better than random ones."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import moescope
from moescope.errors import InputError
from moescope.inputs import read
from moescope.models import zoo
from moescope.models.loading import load
from moescope.models.vmoe.images import prepare

TRAINED = ("dit_moe", "limoe", "mor")


def fashion(model: Any, count: int = 20) -> torch.Tensor:
    """(count, 1, 28, 28) held-out pictures."""
    size: Any = type("Size", (), {"image_size": (28, 28), "channels": 1})
    return torch.from_numpy(prepare([e.image for e in read("fashion-mnist", limit=count).examples], size))


def dit_moe(model: Any) -> torch.Tensor:
    """Error of the velocity at t from 0 to 1."""
    pictures = fashion(model)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.05, 0.95, len(pictures))
    mixed = t[:, None, None, None] * noise + (1 - t[:, None, None, None]) * pictures
    return (model(mixed, t * 1000).sample - (noise - pictures)).square().mean()


def mor(model: Any) -> torch.Tensor:
    """Nats a token of held-out prose."""
    tokenizer = load("mixtral").tokenizer
    text = next(e.text for e in read("text").examples if e.labels["domain"] == "prose")
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :200]
    return model(ids, labels=ids).loss


def limoe(model: Any) -> torch.Tensor:
    """Contrast of five pictures, one each of five classes that are little alike, with their texts."""
    tokenizer, names = load("mixtral").tokenizer, ["Trouser", "Sandal", "Bag", "Pullover", "Ankle boot"]
    said = [f"a photo of a {n}" for n in ("pair of trousers", "sandal", "bag", "pullover", "ankle boot")]
    examples = read("fashion-mnist").examples
    size: Any = type("Size", (), {"image_size": (28, 28), "channels": 1})
    pixels = torch.from_numpy(prepare([next(e.image for e in examples if e.labels["class"] == n) for n in names], size))
    made = tokenizer(said, return_tensors="pt", padding=True)
    patches = torch.full((5, model.patches), model.config.image_token_id)
    mask = torch.cat([torch.ones_like(patches), made.attention_mask], 1)
    out = model(pixels, torch.cat([patches, made.input_ids], 1), mask)
    return nn.functional.cross_entropy(out.logits, torch.arange(5))


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_trained_is_better_than_random_on_what_it_has_not_seen(name: str) -> None:
    loss = {"dit_moe": dit_moe, "mor": mor, "limoe": limoe}[name]
    before = zoo.build(name, zoo.recipe(name)["recipe"]["seed"], **zoo.recipe(name)["build"])
    assert float(loss(zoo.trained(name))) < 0.9 * float(loss(before))


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_loaded_is_what_the_file_holds(name: str, tmp_path: Path) -> None:
    """And its sha256 is the recipe's, so that weights and recipe cannot part."""
    file = zoo.WEIGHTS / f"{name}.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == zoo.recipe(name)["recipe"]["sha256"]
    held, model = load_file(file), zoo.trained(name)
    assert set(held) == set(dict(model.named_parameters()) | dict(model.named_buffers()))  # shared weights once
    first = {p.data_ptr(): key for key, p in reversed(list(model.state_dict().items()))}
    for value in model.state_dict().values():
        assert value.dtype == torch.float32
        assert torch.equal(value.half(), held[first[value.data_ptr()]])
        assert bool(value.isfinite().all())


def test_all_that_is_shipped_is_here() -> None:
    files = sorted(f.name for f in zoo.WEIGHTS.iterdir())
    assert files == sorted(f"{name}.{kind}" for name in TRAINED for kind in ("json", "safetensors"))
    assert zoo.shipped() == TRAINED
    assert sum((zoo.WEIGHTS / f).stat().st_size for f in files) < 10_000_000


@pytest.mark.parametrize("name", ["mor", "mod", "dit_moe", "ec_dit"])
def test_loading_takes_trained_weights_where_there_are_any(name: str) -> None:
    loaded = load(name)
    assert any("random weights" in note for note in loaded.notes) == (name not in TRAINED)
    if name in TRAINED:
        state = zoo.trained(name).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_built_stays_random(name: str) -> None:
    built = zoo.build(name, **zoo.recipe(name)["build"]).state_dict()
    assert not all(torch.equal(value, built[key]) for key, value in zoo.trained(name).state_dict().items())


@pytest.mark.parametrize(("name", "data"), [("dit_moe", "fashion-mnist"), ("mor", "text")])
def test_traced_as_shipped(name: str, data: str, tmp_path: Path) -> None:
    moescope.trace(name, data, tmp_path / "a.duckdb", limit=2)
    with moescope.open(tmp_path / "a.duckdb") as store:
        ((warnings, decisions),) = store.rows("select warnings, decisions from runs")
    assert "random weights" not in str(warnings)
    assert decisions > 0


@pytest.mark.parametrize("name", ["mod", "nothing"])
def test_what_was_not_trained(name: str) -> None:
    with pytest.raises(InputError, match=f"no trained weights of '{name}': there are of dit_moe, limoe, mor"):
        zoo.trained(name)
