"""A folder of a pipeline: prompts from a text file, a line each, through the command; what cannot be is one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.models.loading import SPECIMENS
from moescope.models.packages.diffusers import wan

diffusers = pytest.importorskip("diffusers")
SIZE = ["--set", "height=32", "--set", "width=32", "--set", "num_frames=5", "--set", "num_inference_steps=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan 2.2, tiny, saved."""
    path = tmp_path_factory.mktemp("pipe") / "wan"
    pipe, _ = wan()
    tokenizer = transformers.AutoTokenizer.from_pretrained(SPECIMENS / "switch")
    torch.manual_seed(0)
    encoder: Any = transformers.UMT5EncoderModel(
        transformers.UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    whole: Any = diffusers.WanPipeline(
        tokenizer=tokenizer, text_encoder=encoder.eval(), vae=vae, scheduler=pipe.scheduler, transformer=pipe.transformer,
        transformer_2=pipe.transformer_2, boundary_ratio=0.8,
    )  # fmt: skip
    whole.save_pretrained(path)
    return path


def command(folder: Path, store: Path, *more: str) -> Any:
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("a lighthouse at dusk\n\na dog in the snow\n")
    return CliRunner().invoke(main, ["trace", str(folder), "--data", str(prompts), "--store", str(store), "-q", *more])


def test_prompts(folder: Path, tmp_path: Path) -> None:
    """Two prompts of two steps, each step with and without the prompt; one token is one prompt's picture in all its steps."""
    found = command(folder, tmp_path / "a.duckdb", *SIZE)
    assert (found.exit_code, found.output) == (0, "")
    with moescope.open(tmp_path / "a.duckdb") as store:
        rows = store.rows(
            "select s.text, f.forward, c.value, expert_name from assignments a join forwards f using (forward) "
            "join tokens t using (token) join sequences s on s.sequence = t.sequence "
            "join conditions c on c.forward = f.forward and c.kind = 'timestep' join experts e "
            "on e.router = a.router and e.expert = a.expert order by forward"
        )
        assert rows == [
            (prompt, 4 * n + k, [1000.0, 1.0][k // 2], ["transformer", "transformer_2"][k // 2])
            for n, prompt in enumerate(("a lighthouse at dusk", "a dog in the snow"))
            for k in range(4)
        ]
        halves = store.rows("select label from conditions where kind = 'guidance' order by forward")
        assert [half for (half,) in halves] == ["conditional", "unconditional"] * 4
        assert store.rows("select count(*) from tokens") == [(2,)]
        assert store.rows("select warnings, overrides->>'height' from runs") == [("[]", "32")]


def test_an_option_that_its_call_does_not_take(folder: Path, tmp_path: Path) -> None:
    found = command(folder, tmp_path / "a.duckdb", "--set", "hight=32")
    assert found.exit_code == 2
    assert "a call of WanPipeline takes no 'hight'; it takes" in found.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"_class_name": "NoSuchPipeline"}, "is a NoSuchPipeline, which diffusers"),
        ({"_class_name": ["my", "Pipeline"]}, "names no class of diffusers"),
        ({}, "names no class of diffusers"),
    ],
)
def test_an_index_that_names_something_else(folder: Path, tmp_path: Path, damage: dict[str, Any], said: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text(json.dumps(damage))
    found = command(other, tmp_path / "a.duckdb")
    assert (found.exit_code, said in found.output) == (1, True), found.output


def test_pickled_weights(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "transformer").mkdir(parents=True)
    (other / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    torch.save({"a": torch.zeros(2)}, other / "transformer" / "diffusion_pytorch_model.bin")
    found = command(other, tmp_path / "a.duckdb")
    assert found.exit_code == 1
    assert "pickled" in found.output
