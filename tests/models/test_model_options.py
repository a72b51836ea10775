"""`--attn` and `--adapter`: what ran stands in the run; what cannot run is refused in a sentence, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from experts_called import experts_called
from quantized import without
from small import ids, mixtral

import moescope
from moescope.cli import main
from moescope.models import attention, tiny
from moescope.models.loading import load

peft = pytest.importorskip("peft")
PARTS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "experts": {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    "router": {"target_parameters": ["mlp.gate.weight"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, another of its widths, one with fewer layers, gpt_oss, nllb, an adapter of base for each of PARTS, and data."""
    folder = tmp_path_factory.mktemp("made")
    mixtral().save_pretrained(folder / "base")
    mixtral(seed=1).save_pretrained(folder / "same widths")
    mixtral(layers=1).save_pretrained(folder / "one layer")
    for family in ("gpt_oss", "nllb-moe"):
        tiny.build(family).model.save_pretrained(folder / family)
    for part, targets in PARTS.items():
        torch.manual_seed(1)
        model = peft.get_peft_model(mixtral(), peft.LoraConfig(r=2, init_lora_weights=False, **targets))
        model.peft_config["default"].base_model_name_or_path = str(folder / "base")
        model.save_pretrained(folder / part)
    np.savez(folder / "data.npz", input_ids=ids().numpy())
    return folder


def command(made: Path, model: str, store: Path, *more: str) -> Any:
    args = ["trace", str(made / model), "--data", str(made / "data.npz"), "--store", str(store), "--quiet", *more]
    return CliRunner().invoke(main, args)


def stored(path: Path) -> tuple[list[Any], str, dict[str, Any], list[str]]:
    with moescope.open(path) as store:
        rows = store.rows("select router, token, slot, expert, weight from assignments order by all")
        name, config, warnings = store.rows("select m.name, m.config, r.warnings from runs r join models m using (model)")[0]
    return rows, name, json.loads(config), json.loads(warnings)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("asked", [None, "eager", "sdpa"])
def test_the_attention_that_ran_is_recorded(made: Path, tmp_path: Path, asked: str | None) -> None:
    done = command(made, "base", tmp_path / "s.duckdb", *(["--attn", asked] if asked else []))
    assert (done.exit_code, done.output) == (0, "")
    rows, _, config, _ = stored(tmp_path / "s.duckdb")
    assert (config["attn_implementation"], config["experts_implementation"]) == (asked or "sdpa", "grouped_mm")
    model = mixtral()
    model.set_attn_implementation(asked or "sdpa")
    assert rows == experts_called(model)


def test_flex_attention_is_asked_for(made: Path) -> None:
    """Not run here: on a CPU it is compiled for every form of its input."""
    assert load(made / "base", attn="flex_attention").model.config._attn_implementation == "flex_attention"


REFUSED = {
    "a word": ("base", "fast", "attention 'fast' is not one of eager, sdpa, flash_attention_2, flex_attention"),
    "no package": ("base", "flash_attention_2", "flash_attention_2 needs the package flash-attn, which is not installed"),
    "not in this class": (
        "gpt_oss",
        "sdpa",
        "is a GptOssForCausalLM, whose attention knows eager, flash_attention_2, flex_att",
    ),
    "one of three": ("nllb-moe", "flex_attention", "is a NllbMoeForConditionalGeneration, whose attention knows eager and not"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_attention_that_is_not_there_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    model, asked, said = REFUSED[case]
    without(monkeypatch, attention, "flash_attn")
    refused(made, model, tmp_path, said, "--attn", asked)


def test_flash_attention_wants_a_gpu(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    said = "flash_attention_2 runs on a GPU only, and the device is cpu; say --attn sdpa"
    refused(made, "base", tmp_path, said, "--attn", "flash_attention_2", "--device", "cpu")


def refused(made: Path, model: str, folder: Path, said: str, *more: str) -> None:
    done = command(made, model, folder / "s.duckdb", *more)
    assert done.exit_code in (1, 2), done.output
    assert said in done.stderr
    assert (done.stderr.startswith("moescope: "), done.stderr.count("\n")) == (True, 1)
    assert not (folder / "s.duckdb").exists()


@pytest.mark.parametrize("part", PARTS)
def test_an_adapter_is_put_on_the_model_that_is_named(made: Path, tmp_path: Path, part: str) -> None:
    done = command(made, "base", tmp_path / "s.duckdb", "--adapter", str(made / part))
    assert (done.exit_code, done.output) == (0, "")
    rows, name, config, warnings = stored(tmp_path / "s.duckdb")
    wanted = experts_called(peft.PeftModel.from_pretrained(mixtral(), made / part).eval())
    assert rows == wanted
    assert rows != experts_called(mixtral())
    assert name == f"{made / 'base'} + {made / part}"
    assert (config["adapters"]["default"]["r"], [w for w in warnings if "names" in w]) == (2, [])


def test_an_adapter_on_another_base_that_it_fits_is_said(made: Path, tmp_path: Path) -> None:
    done = command(made, "same widths", tmp_path / "s.duckdb", "--adapter", str(made / "attention"))
    assert (done.exit_code, done.output) == (0, "")
    said = f"the adapter names {made / 'base'} as its base model, and was put on {made / 'same widths'}"
    assert said in stored(tmp_path / "s.duckdb")[3]


def changed(made: Path, folder: Path, **config: Any) -> Path:
    """An adapter of attention whose configuration says something else."""
    folder.mkdir()
    for path in (made / "attention").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settings = json.loads((folder / "adapter_config.json").read_text()) | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def without_weights(made: Path, folder: Path) -> Path:
    changed(made, folder)
    (folder / "adapter_model.safetensors").unlink()
    return folder


def cut(made: Path, folder: Path) -> Path:
    changed(made, folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


# the model; what --adapter is, made of the fixture and a folder of its own; what the sentence holds
BAD: dict[str, tuple[str, Any, str]] = {
    "nowhere": ("base", lambda m, f: f, "is no adapter: its folder has an adapter_config.json and no weights of a whole model"),
    "a file": ("base", lambda m, f: m / "data.npz", "and this is no folder"),
    "an empty folder": ("base", lambda m, f: f.mkdir() or f, "and this is a folder without"),
    "a model": ("base", lambda m, f: m / "one layer", "and this is a whole model"),
    "an adapter on an adapter": ("attention", lambda m, f: m / "router", "is an adapter itself; name its base model"),
    "a base with fewer layers": ("one layer", lambda m, f: m / "attention", "holds weights that fit nowhere in its base model"),
    "a base of other modules": ("gpt_oss", lambda m, f: m / "router", "cannot be put on its base model"),
    "another rank": ("base", lambda m, f: changed(m, f, r=3), "cannot be put on its base model"),
    "without weights": ("base", without_weights, "cannot be put on its base model"),
    "cut off": ("base", cut, "is cut off or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_adapters_get_one_sentence(made: Path, tmp_path: Path, case: str) -> None:
    model, make, said = BAD[case]
    refused(made, model, tmp_path, said, "--adapter", str(make(made, tmp_path / "adapter")))


def test_a_model_of_ours_takes_no_adapter(made: Path, tmp_path: Path) -> None:
    with pytest.raises(moescope.errors.MoescopeError):
        load("vmoe", adapter=made / "attention")
