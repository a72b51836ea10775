"""A checkpoint that lacks weights of its model, holds others, or is cut off is refused in one sentence; or loaded, and said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from small import mixtral
from torch import Tensor

import moescope
from moescope.cli import main
from moescope.errors import ModelError
from moescope.models import tiny
from moescope.models.describe import weights_sha256
from moescope.models.loading import load, specimens

Weights = dict[str, Tensor]
CURE = "; get the whole checkpoint, or the class it was saved from (architectures in config.json), or say --allow-missing"


def saved(folder: Path, model: Any = None, change: Callable[[Weights], object] | None = None, **config: object) -> Path:
    """A model's folder whose weights and configuration are then changed."""
    (model or mixtral()).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    if change is not None:
        change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def without(*parts: str) -> Callable[[Weights], object]:
    return lambda weights: [weights.pop(key) for key in list(weights) if any(part in key for part in parts)]


def other(key: str, *shape: int) -> Callable[[Weights], object]:
    return lambda weights: weights.update({key: torch.zeros(shape)})


def half_of_an_expert(weights: Weights) -> None:
    key = next(key for key in weights if "experts.3.w1" in key)
    weights[key] = weights[key][:7].clone()


def base(folder: Path, **config: object) -> Path:
    return saved(folder, mixtral().model, None, **config)


LM = {"architectures": ["MixtralForCausalLM"]}
# how the folder is made; the sentence; what stands in the run's warnings, None where it is refused all the same
BAD: dict[str, tuple[Callable[[Path], Path], str, str | None]] = {
    "a layer": (
        lambda f: saved(f, change=without("layers.1.")),
        "{} lacks 9 of the weights of MixtralForCausalLM (model.layers.1.input_layernorm.weight and 8 more), which would be "
        "random numbers" + CURE,
        "the checkpoint lacks 9 of the weights of MixtralForCausalLM (model.layers.1.input_layernorm.weight and 8 more), which "
        "are random numbers"),
    "the routers": (
        lambda f: saved(f, change=without(".gate.")),
        "{} lacks 2 of the weights of MixtralForCausalLM (model.layers.0.mlp.gate.weight and 1 more), which would be random "
        "numbers" + CURE,
        "the checkpoint lacks 2 of the weights of MixtralForCausalLM (model.layers.0.mlp.gate.weight and 1 more), which are "
        "random numbers"),
    "the head of a base model": (
        lambda f: base(f, **LM),
        "{} lacks 1 of the weights of MixtralForCausalLM (lm_head.weight), which would be random numbers" + CURE,
        "the checkpoint lacks 1 of the weights of MixtralForCausalLM (lm_head.weight), which are random numbers"),
    "a base model that names no class": (
        lambda f: base(f, architectures=None),
        "{} lacks 1 of the weights of MixtralForCausalLM (lm_head.weight), which would be random numbers" + CURE,
        "the checkpoint lacks 1 of the weights of MixtralForCausalLM (lm_head.weight), which are random numbers"),
    "a layer too many": (
        lambda f: saved(f, num_hidden_layers=1),
        "{} holds 9 weights that MixtralForCausalLM does not have (model.layers.1.input_layernorm.weight and 8 more), which "
        "are left out" + CURE,
        "the checkpoint holds 9 weights that MixtralForCausalLM does not have (model.layers.1.input_layernorm.weight and 8 "
        "more), which are left out"),
    "another vocabulary": (
        lambda f: saved(f, change=other("lm_head.weight", 98, 32)),
        "{} holds 1 weights of another shape than MixtralForCausalLM has (lm_head.weight: (98, 32), not (97, 32)), which would "
        "be random numbers" + CURE,
        "the checkpoint holds 1 weights of another shape than MixtralForCausalLM has (lm_head.weight: (98, 32), not (97, 32)), "
        "which are random numbers"),
    "one matrix of one expert": (
        lambda f: saved(f, change=without("layers.0.block_sparse_moe.experts.3.w1")),
        "{} cannot be loaded: the weights it holds do not make up model.layers.0.mlp.experts.gate_up_proj (", None),
    "half an expert": (
        lambda f: saved(f, change=half_of_an_expert),
        "{} cannot be loaded: the weights it holds do not make up model.layers.0.mlp.experts.gate_up_proj (", None),
}  # fmt: skip


def trace(folder: Path, out: Path, *more: str) -> Any:
    np.savez(out / "data.npz", input_ids=np.array([[1, 2, 3]]))
    return CliRunner().invoke(
        main, ["trace", str(folder), "--data", str(out / "data.npz"), "--store", str(out / "run.duckdb"), "--quiet", *more]
    )


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_sentence_or_loaded_and_said(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, sentence, warning = BAD[case]
    folder = make(tmp_path / "model")
    done = trace(folder, tmp_path)
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    assert done.stderr.startswith("moescope: " + sentence.format(folder))
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run.duckdb").exists()
    capfd.readouterr()
    assert CliRunner().invoke(main, ["check", str(folder)]).stderr == done.stderr
    ablate = CliRunner().invoke(main, ["ablate", str(folder), "--store", str(tmp_path / "none.duckdb"), "--data", "text"])
    assert ablate.stderr == done.stderr
    assert capfd.readouterr() == ("", "")  # nor does a library speak
    done = trace(folder, tmp_path, "--allow-missing")
    if warning is None:
        assert done.exit_code == 1
        return
    assert (done.exit_code, done.output) == (0, "")
    with moescope.open(tmp_path / "run.duckdb") as store:
        assert [list(row[0]) for row in store.rows("select json_extract_string(warnings, '$[*]') from runs")] == [[warning]]
    done = CliRunner().invoke(main, ["check", str(folder), "--allow-missing"])
    assert done.stderr == f"moescope: {warning}\n"
    assert weights_sha256(load(folder, allow_missing=True).model) == weights_sha256(load(folder, allow_missing=True).model)


def test_random_numbers_in_place_of_what_is_missing_leave_the_user_s_own_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", change=without("lm_head"))
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    load(folder, allow_missing=True)
    assert torch.equal(torch.rand(2), wanted)


def shards(folder: Path) -> list[Path]:
    mixtral(layers=4).save_pretrained(folder, max_shard_size="60KB")
    return sorted(folder.glob("model-*.safetensors"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


# what happens to the second file of weights; what the sentence says
TORN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "{} lacks model-00002-of-00014.safetensors (1 of 14 files of its weights); fetch it again"),
    "cut off": (cut, "{}/model-00002-of-00014.safetensors is cut off or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "{}/model-00002-of-00014.safetensors is damaged"),
    "a page of a web server": (lambda path: path.write_text("<html>" * 9), "{}/model-00002-of-00014.safetensors is damaged"),
    "cut off in its header": (
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        "{}/model-00002-of-00014.safetensors is damaged",
    ),
    "a pointer of git-lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"),
        "{}/model-00002-of-00014.safetensors only says where git-lfs has the file; fetch what is in it: git lfs pull",
    ),
    "begun": (
        lambda path: path.rename(path.with_name(path.name + ".incomplete")),
        "{} lacks model-00002-of-00014.safetensors (1 of 14 files of its weights); a download was cut off here "
        "(model-00002-of-00014.safetensors.incomplete): fetch it again",
    ),
    "nothing but begun": (
        lambda path: [
            other.rename(other.with_name(other.name + ".incomplete")) if other.suffix == ".safetensors" else other.unlink()
            for other in path.parent.glob("model*")
        ],
        "{} has no weights, only what a download has begun (model-00001-of-00014.safetensors.incomplete); fetch it again",
    ),
    "some of them and no index": (
        lambda path: [path.unlink(), (path.parent / "model.safetensors.index.json").unlink()],
        "{} has 13 of 14 files of its weights and no index of them (model.safetensors.index.json); fetch it again",
    ),
    "a pointer to the configuration": (
        lambda path: (path.parent / "config.json").write_text("version https://git-lfs.github.com/spec/v1\nsize 7\n"),
        "{}/config.json only says where git-lfs has the file",
    ),
    "no index": (
        lambda path: (path.parent / "model.safetensors.index.json").write_text("{"),
        "model.safetensors.index.json is not JSON",
    ),
}


@pytest.mark.parametrize("case", TORN)
def test_files_of_weights_that_are_not_whole(tmp_path: Path, case: str) -> None:
    tear, sentence = TORN[case]
    tear(shards(tmp_path / "model")[1])
    done = trace(tmp_path / "model", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert sentence.format(tmp_path / "model") in done.stderr


def test_one_file_that_is_cut_off(tmp_path: Path) -> None:
    cut(saved(tmp_path / "model") / "model.safetensors")
    with pytest.raises(ModelError, match=r"model.safetensors is cut off or damaged"):
        load(tmp_path / "model")


def test_a_hub_checkpoint_without_its_index_names_its_class(tmp_path: Path) -> None:
    """Shards without their index: nobody knows whether they are all."""
    shards(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match=r"has (\d+) of \1 files of its weights and no index of them"):
        load(tmp_path / "model")


def old_buffers(weights: Weights) -> None:
    for layer in (0, 1):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)


# checkpoints that hold more than is loaded, or less than the state dict has; what is said
HEALTHY: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "as saved": (saved, []),
    "tied": (lambda f: saved(f, mixtral(tie_word_embeddings=True), without("lm_head")), []),
    "in shards": (lambda f: shards(f)[0].parent, []),
    "buffers of old": (lambda f: saved(f, change=old_buffers), []),
    "a base model as such": (base, []),
    "a base model with the head of another": (
        lambda f: saved(f, architectures=["MixtralModel"]),
        ["the checkpoint holds 1 weights that MixtralModel does not run (lm_head.weight)"]),
    "layers that predict further tokens": (
        lambda f: saved(f, num_hidden_layers=1, num_nextn_predict_layers=1),
        ["the checkpoint holds 9 weights that MixtralForCausalLM does not run (model.layers.1.input_layernorm.weight and 8 "
         "more)"]),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_what_is_healthy_is_not_refused(tmp_path: Path, case: str) -> None:
    make, said = HEALTHY[case]
    assert load(make(tmp_path / "model")).notes == said


@pytest.mark.parametrize("name", specimens())
def test_specimens_are_whole(name: str) -> None:
    assert load(name).notes == []


@pytest.mark.sampled(25)
@pytest.mark.slow
@pytest.mark.parametrize("family", tiny.names())
def test_every_family_is_whole_as_it_is_saved(tmp_path: Path, family: str) -> None:
    built = tiny.build(family)
    built.model.config.architectures = [type(built.model).__name__]
    built.model.save_pretrained(tmp_path)
    if not hasattr(transformers, type(built.model).__name__):
        pytest.skip(f"{type(built.model).__name__} is in no namespace that a configuration could name")
    loaded = load(tmp_path)
    assert loaded.notes == []
    was, now = built.model.state_dict(), loaded.model.state_dict()
    changed = {key.rpartition(".")[2] for key in was if not torch.equal(was[key], now[key])}
    assert changed == ({"balancing_biases"} if family == "zaya" else set())  # Transformers 5.23 sets the last of them anew


def test_a_vmoe_must_be_whole(tmp_path: Path) -> None:
    load("vmoe").model.save_pretrained(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    without("layers.1.")(weights)
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(moescope.errors.InputError, match=r"the parameters do not fit the config: .* Missing key"):
        load(tmp_path / "model", allow_missing=True)
