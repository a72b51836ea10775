"""Models spread over memory and the disk: recorded is what a plain copy executes; what cannot be is refused in a sentence."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small import ids, mixtral
from torch import Tensor, nn

import moescope
from moescope.cli import main
from moescope.errors import InputError, MoescopeError
from moescope.models import tiny
from moescope.models.describe import weights_sha256
from moescope.models.loading import load
from moescope.models.placing.placement import memory_of

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on the disk, in several files."""
    found = tmp_path_factory.mktemp(request.param) / "model"
    tiny.build(request.param).model.save_pretrained(found, max_shard_size="100KB")  # type: ignore[operator]
    assert len(list(found.glob("*.safetensors"))) > 1
    return found


def executed(model: nn.Module) -> tuple[list[Tensor], Tensor]:
    """What enters the experts of every layer, by hooks of our own, and the logits."""
    seen: list[Tensor] = []
    experts = [part for name, part in model.named_modules() if name.endswith(".experts")]
    hooks = [m.register_forward_pre_hook(lambda _, args: seen.append(args[1].sort(-1).values.clone())) for m in experts]
    with torch.no_grad():
        logits = model(input_ids=ids(3, 9)).logits
    for hook in hooks:
        hook.remove()
    return seen, logits


def over_the_disk(model: Any) -> dict[str, str]:
    """Each layer but the first on the disk, and the head."""
    places = dict.fromkeys((name for name, _ in model.model.named_children() if name != "layers"), "cpu")
    places = {f"model.{name}": place for name, place in places.items()} | {"lm_head": "disk"}
    return places | {f"model.layers.{n}": "disk" if n else "cpu" for n in range(len(model.model.layers))}


WAYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a map": lambda model: {"device_map": over_the_disk(model)},
    "all on the disk": lambda _: {"device_map": {"": "disk"}},
    "bounds": lambda model: {"max_memory": {"cpu": sum(p.nbytes for p in model.parameters()) // 2}},
    "in order": lambda _: {"device_map": "sequential", "max_memory": "cpu=150KB"},
}


SPREAD = [
    *(("mixtral", way) for way in WAYS),
    *(("qwen2_moe", "a map"), ("gpt_oss", "bounds"), ("gpt_oss", "all on the disk"), ("deepseek_v3", "in order")),
]


@pytest.mark.parametrize(("folder", "way"), SPREAD, indirect=["folder"])
@pytest.mark.sampled(4)
def test_what_is_recorded_is_what_a_plain_copy_executes(folder: Path, way: str, tmp_path: Path) -> None:
    plain = load(folder).model
    decisions, logits = executed(plain)
    spread = load(folder, **WAYS[way](plain)).model
    assert any(p.is_meta for p in spread.parameters())
    with moescope.Tracer(spread, tmp_path / "s.duckdb", inputs={"input_ids": ids()}) as tracer, torch.no_grad():
        given = spread(input_ids=ids(3, 9)).logits
    # a matrix of one row is multiplied in another order where its address in memory is another: the gate of the shared expert
    difference = 1e-6 if "qwen2_moe" in str(folder) else 0.0
    assert float((given - logits).abs().max()) <= difference
    assert all(p.identical for p in tracer.proof)
    assert weights_sha256(spread) == weights_sha256(plain)
    query = "select list(expert order by expert) from assignments group by router, token order by router, token"
    with moescope.open(tmp_path / "s.duckdb") as store:
        assert [row[0] for row in store.rows(query)] == torch.cat(decisions).reshape(-1, decisions[0].shape[-1]).tolist()


@pytest.mark.parametrize("folder", ["mixtral"], indirect=True)
def test_the_folder_of_what_is_on_the_disk_ends_with_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = load(folder, device_map={"": "disk"})
    assert len(list(tmp_path.glob("moescope-offload-*"))) == 1
    del loaded
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("small") / "model"
    mixtral(layers=4).to(torch.bfloat16).save_pretrained(found, max_shard_size="60KB")
    np.savez(found.parent / "data.npz", input_ids=ids(3, 9).numpy())
    return found


def run(folder: Path, store: Path, *options: str, command: str = "trace") -> Any:
    data = ["--data", str(folder.parent / "data.npz"), "--store", str(store), "-q"]
    return CliRunner().invoke(main, [command, str(folder), *(data if command != "check" else []), *options])


def test_commands_record_the_same_wherever_weights_lie(small: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"model": "cpu", "model.layers.1": "disk", "lm_head": "disk"}))
    rows = []
    for number, options in enumerate([[], ["--max-memory", "cpu=250KB"], ["--device-map", str(tmp_path / "map.json")]]):
        done = run(small, tmp_path / f"{number}.duckdb", *options)
        assert (done.exit_code, done.output) == (0, "")
        with moescope.open(tmp_path / f"{number}.duckdb") as store:
            rows.append(store.rows("select router, token, rank, expert, weight from assignments order by all"))
            assert store.rows("select dtype from models") == [("bfloat16",)]  # the checkpoint's own
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 4 * 27 * 2
    checked = run(small, tmp_path / "no", "--max-memory", "cpu=250KB", command="check")
    assert checked.stdout.endswith("4 of 4 routers of " + f"{small} are recorded as executed\n")
    assert run(small, tmp_path / "1.duckdb", "--max-memory", "cpu=250KB", "--experts", "0:1", command="ablate").exit_code == 0


def test_what_loading_takes_is_said_without_loading(small: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((small / "config.json").read_text())
    mine = run(tmp_path, tmp_path, "--dry-run", "--max-memory", "cpu=250KB", command="check").stdout
    told = run(small, tmp_path, "--dry-run", "--max-memory", "cpu=250KB", command="check").stdout
    assert mine.partition(" has ")[2].split(" free")[0] == told.partition(" has ")[2].split(" free")[0]
    assert told.startswith(f"{small} has 0.2 million weights, 0.33 MB in bfloat16; ")
    assert " to cpu (" in told
    assert " to the disk (" in told


WHOLE = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
REFUSED: dict[str, tuple[list[str], Any, str]] = {
    "a GPU that is not there": (["--device", "cuda:77"], None, "device 'cuda:77' cannot be used here: "),
    "a device of another machine": (["--device", "xpu"], None, "device 'xpu' cannot be used here: "),
    "no device": (["--device", "nonsense"], None, "device 'nonsense' cannot be used here: "),
    "nothing at all": (["--device", "meta"], None, "device 'meta' holds no numbers"),
    "a device and a map": (["--device", "cpu", "--device-map", "auto"], None, "a device map says where every part goes"),
    "a device and bounds": (["--device", "cpu", "--max-memory", "cpu=1GB"], None, "max-memory bounds a model that is spread"),
    "no map": (["--device-map", "blanced"], None, "there is no device map 'blanced': name a JSON file"),
    "no JSON": (["--device-map", "MAP"], "{", "is not JSON"),
    "a list": (["--device-map", "MAP"], "[1]", "is a JSON list; write"),
    "an empty one": (["--device-map", "MAP"], "{}", "is empty; write"),
    "a module that is not there": (["--device-map", "MAP"], WHOLE | {"model.layer.0": "cpu"},
                                   "the device map names model.layer.0, which MixtralForCausalLM has not"),
    "modules left out": (["--device-map", "MAP"], {"model": "cpu"}, "leaves out lm_head.weight of MixtralForCausalLM"),
    "a place that is none": (["--device-map", "MAP"], WHOLE | {"lm_head": None}, "puts 'lm_head' on null, which is no device"),
    "a part of a place": (["--device-map", "MAP"], WHOLE | {"lm_head": 1.5}, "puts 'lm_head' on 1.5, which is no device"),
    "a GPU in a map": (["--device-map", "MAP"], WHOLE | {"lm_head": 77}, "device 'cuda:77' cannot be used here"),
    "a given map and bounds": (["--device-map", "MAP", "--max-memory", "cpu=1GB"], WHOLE, "max-memory is for maps that"),
    "bounds without a size": (["--max-memory", "cpu"], None, "'cpu' says no size"),
    "bounds in no unit": (["--max-memory", "cpu=4 loaves"], None, "'4 loaves' is no size such as 20GB"),
    "bounds below nothing": (["--max-memory", "cpu=-1"], None, "'-1' is no size"),
    "bounds of a GPU that is not there": (["--max-memory", "77=1GB"], None, "device 'cuda:77' cannot be used here"),
    "bounds twice": (["--max-memory", "cpu=1GB,cpu=2GB"], None, "names no device, or one twice"),
    "quantized weights on the disk": (["--quantize", "int8-torchao", "--max-memory", "cpu=100KB"], None,
                                      "quantized by int8-torchao does not fit where it may go, and quantized weights"),
    "bounds that nothing fits": (["--max-memory", "cpu=1KB,disk=1KB"], None, "does not fit: 0.33 MB of weights (bfloat16"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["trace", "check"])
def test_refused_in_one_sentence(small: Path, tmp_path: Path, case: str, command: str) -> None:
    options, content, sentence = REFUSED[case]
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    done = run(small, tmp_path / "no.duckdb", *(str(path) if o == "MAP" else o for o in options), command=command)
    assert done.exit_code in (1, 2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.output
    assert sentence in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"map.json"}


@pytest.mark.parametrize(("device", "cure"), [("cpu", "--device auto, which spreads it"), ("auto", "set TMPDIR to a folder")])
def test_what_cannot_fit_is_refused_before_it_is_loaded(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, cure: str
) -> None:
    monkeypatch.setattr("moescope.models.placing.memory_plan.free_ram", lambda: 50_000)
    monkeypatch.setattr("moescope.models.placing.memory_plan.shutil.disk_usage", lambda _: type("", (), {"free": 10_000}))
    monkeypatch.setattr("transformers.MixtralForCausalLM.from_pretrained", None)
    done = run(small, tmp_path / "no.duckdb", "--device", device, "--dtype", "float32")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert f"moescope: {small} does not fit: " in done.stderr
    assert cure in done.stderr
    assert "--dtype bfloat16" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_in_memory_goes_to_the_disk_by_itself(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moescope.models.placing.memory_plan.free_ram", lambda: 300_000)
    said: list[str] = []
    monkeypatch.setattr("moescope.models.checkpoint.LARGE", 0)
    model = load(small, say=said.append).model
    assert {str(place) for place in model.hf_device_map.values()} == {"cpu", "disk"}  # type: ignore[union-attr, operator]
    assert len(said) == 1
    assert " to the disk (" in said[0]


TORCH = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)
ERRORS: dict[str, BaseException] = {
    "Python": MemoryError(),
    "torch": RuntimeError(TORCH),
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 9 GiB"),
    "the system": OSError(12, "Cannot allocate memory"),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "where", ["transformers.MixtralForCausalLM.from_pretrained", "transformers.MixtralForCausalLM.forward"]
)
def test_memory_that_runs_out_is_told_in_one_sentence(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: str
) -> None:
    def full(self: object, input_ids: object = None, **_: object) -> None:
        raise ERRORS[error]

    monkeypatch.setattr(where, full)
    done = run(small, tmp_path / "no.duckdb")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.output
    assert "there is not enough memory" in done.stderr
    assert ("on GPU 0" in done.stderr) == (error == "a GPU")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "bytes_"), [("1GB", 10**9), ("1.5GiB", 3 << 29), ("2kb", 2000), ("7", 7), (" 3 MB ", 3 * 10**6), ("1TiB", 1 << 40)]
)
def test_sizes_as_people_write_them(text: str, bytes_: int) -> None:
    assert memory_of(f"cpu={text}") == memory_of({"cpu": text}) == {"cpu": bytes_}


@pytest.mark.parametrize("asked", ["", "=", "cpu=", "cpu=1e9", "cpu=nan", "=1GB", "-1=1GB", "cpu=1GB,", "a b=1", "٣=1"])
def test_bounds_that_are_none(asked: str) -> None:
    with pytest.raises(InputError):
        memory_of(asked)


@pytest.mark.parametrize("name", ["vmoe", "mor"])
def test_what_is_not_spread_says_so(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is no model of Transformers, and only those are spread"):
        load(name, max_memory="cpu=1GB")


def test_an_adapter_on_a_model_that_is_spread(small: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = load(small).model
    config = peft.LoraConfig(target_modules=["q_proj", "o_proj"], r=2, init_lora_weights=False)
    base.name_or_path = str(small)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(small)}))
    assert not torch.equal(executed(load(tmp_path / "lora").model)[1], executed(load(small).model)[1])
    with pytest.raises(MoescopeError, match="PEFT puts none on weights that are kept on the disk"):
        load(tmp_path / "lora", max_memory="cpu=250KB")


def test_a_map_from_python_is_held_to_the_same(small: Path) -> None:
    with pytest.raises(MoescopeError, match="the device map names nothing, which"):
        load(small, device_map={"": "cpu", "nothing": "disk"})


@pytest.mark.parametrize(("option", "sentence"), [
    (["--attn", "foo"], "attention 'foo' is not one of"),
    (["--adapter", "nowhere"], "nowhere is no adapter"),
    (["--quantize", "3bit"], "quantization '3bit' is not one of"),
    (["--quantize", "int8-torchao", "--max-memory", "cpu=100KB"], "quantized weights lie neither on the disk"),
])  # fmt: skip
def test_what_is_planned_is_held_to_what_is_loaded(small: Path, option: list[str], sentence: str) -> None:
    done = CliRunner().invoke(main, ["check", str(small), "--dry-run", *option])
    assert (done.exit_code in (1, 2), done.stdout, done.stderr.count("\n"), sentence in done.stderr) == (True, "", 1, True)
