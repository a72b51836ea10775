"""Bad input to `moescope trace`: one sentence on standard error, exit code 1 or 2, and nothing left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tracing
import transformers
from click.testing import CliRunner
from PIL import Image

from moescope.cli import main

Make = Callable[[Path], object]


def text(content: bytes) -> Make:
    return lambda folder: (folder / "data.txt").write_bytes(content)


def images(folder: Path, *sizes: int) -> None:
    (folder / "data" / "cat").mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(folder / "data" / "cat" / f"{number}.png")


def no_image(folder: Path) -> None:
    images(folder, 28)
    (folder / "data" / "cat" / "x.png").write_bytes(b"\x89PNG no")


def model(folder: Path, **changes: object) -> None:
    tracing.tiny().save_pretrained(folder / "model")
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def dense(folder: Path) -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=1)).save_pretrained(folder / "model")


def pickled(folder: Path) -> None:
    model(folder)
    (folder / "model" / "model.safetensors").unlink()
    torch.save(tracing.tiny().state_dict(), folder / "model" / "pytorch_model.bin")


def ids(folder: Path) -> None:
    np.savez(folder / "data.npz", input_ids=np.array([[1, 2, 3]]))


def other(folder: Path) -> None:
    (folder / "run.duckdb").write_text("a letter")


# what is prepared; the command line (FOLDER is the test's own); exit code; what the sentence holds
BAD: dict[str, tuple[list[Make], str, int, str]] = {
    "no such model": ([text(b"a\n")], "nothing --data FOLDER/data.txt", 2, "there is no model 'nothing'"),
    "not a MoE model": ([dense, ids], "MODEL", 1, "has no router that moescope can find"),
    "code of its own": ([lambda f: model(f, auto_map={"AutoModel": "x.Y"}), ids], "MODEL", 1,
                        "runs only with --trust-remote-code"),
    "pickled": ([pickled, ids], "MODEL", 1, "are pickled (pytorch_model.bin)"),
    "a folder that is no model": ([text(b"a\n")], "FOLDER --data FOLDER/data.txt", 1, "is no model"),
    "no data": ([], "mixtral --data FOLDER/data.txt", 2, "There is no file, folder or shipped set"),
    "empty": ([text(b"")], "mixtral --data FOLDER/data.txt", 2, "data.txt holds nothing to trace"),
    "empty lines": ([text(b"\n \n\n")], "mixtral --data FOLDER/data.txt", 2, "data.txt holds nothing to trace"),
    "not UTF-8": ([text(b"good\n\xff\xfe bad\n")], "mixtral --data FOLDER/data.txt", 2, "is not UTF-8 text: byte 0xff"),
    "not an image": ([no_image], "vmoe --data FOLDER/data", 2, "x.png"),
    "mixed sizes": ([lambda f: images(f, 28, 32)], "vmoe --data FOLDER/data", 2, "holds images of 2 shapes"),
    "no such column": ([lambda f: (f / "d.jsonl").write_text('{"text": "a", "x": 1}\n')],
                       "mixtral --data FOLDER/d.jsonl --label-column genre", 2, "has no column 'genre'"),
    "text for a vision model": ([text(b"a\n")], "vmoe --data FOLDER/data.txt", 2, "reads images"),
    "text without a tokenizer": ([model, text(b"a\n")], "FOLDER/model --data FOLDER/data.txt", 2, "comes without a tokenizer"),
    "unknown layer": ([model, ids], "MODEL --layers 0,9", 2, "no router in layer 9"),
    "not layers": ([model, ids], "MODEL --layers x", 2, "'x' is not a list of layers"),
    "a store that is none": ([model, ids, other], "MODEL", 1, "is not a moescope store"),
    "overwrite what is no store": ([model, ids, other], "MODEL --overwrite", 1, "not a moescope store"),
    "a store in no folder": ([model, ids], "MODEL --store FOLDER/nowhere/x.duckdb", 1, "make it first"),
    "no tokens": ([model, ids], "MODEL --max-tokens 0", 2, "0 is not in the range x>=1"),
    "no option": ([model, ids], "MODEL --nonsense", 2, "No such option"),
    "nothing to resume": ([model, ids], "MODEL --resume", 1, "there is no store"),
    "no such device": ([model, ids], "MODEL --device tpu9", 2, "device 'tpu9' cannot be used here"),
    "no such type": ([model, ids], "MODEL --dtype int3", 2, "dtype 'int3' is not one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_sentence(tmp_path: Path, case: str) -> None:
    makes, line, code, said = BAD[case]
    for make in makes:
        make(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    arguments = [
        "trace",
        *line.replace("MODEL", "FOLDER/model --data FOLDER/data.npz").replace("FOLDER", str(tmp_path)).split(),
    ]
    if "--store" not in arguments:
        arguments += ["--store", str(tmp_path / "run.duckdb")]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert said in done.stderr
    assert done.stderr.startswith("moescope: ")
    assert done.stderr.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_a_hub_name_without_network(tmp_path: Path) -> None:
    """Answered at once, without the network being asked twice: a proxy that refuses stands for it."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": ""}
    (tmp_path / "data.txt").write_text("a\n")
    command = [sys.executable, "-c", "from moescope.cli import main; main()", "trace", "nobody/nothing", "--data", "data.txt"]
    done = subprocess.run([*command, "--store", "run.duckdb"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "moescope: nobody/nothing is not here and the hub cannot be reached: check the name or the network, or give a local "
        "folder\n"
    )
    assert not (tmp_path / "run.duckdb").exists()


def test_a_text_longer_than_the_context_is_traced_in_windows_and_said(tmp_path: Path) -> None:
    model(tmp_path)
    np.savez(tmp_path / "data.npz", input_ids=np.arange(1, 51).repeat(2)[None])
    store = str(tmp_path / "run.duckdb")
    done = CliRunner().invoke(main, ["trace", str(tmp_path / "model"), "--data", str(tmp_path / "data.npz"), "--store", store])
    assert done.exit_code == 0
    assert "1 texts are longer than 64 tokens; each was traced in windows" in " ".join(done.stdout.split())
    rows = CliRunner().invoke(main, ["sql", store, "select part, tokens from sequences order by part", "--format", "csv"])
    assert rows.output == "part,tokens\n0,64\n1,36\n"


def test_trace_prints_what_it_did_and_how_to_go_on(tmp_path: Path) -> None:
    model(tmp_path)
    ids(tmp_path)
    store = tmp_path / "run.duckdb"
    arguments = ["trace", str(tmp_path / "model"), "--data", str(tmp_path / "data.npz"), "--store", str(store)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0
    assert "6 decisions (12 assignments) for 3 tokens of 1 sequences in 1 \nforwards" in done.stdout.replace(
        "in 1 forwards", "in 1 \nforwards"
    )
    assert f"Look at it:  moescope app {store}\n" in done.stdout
    query = done.stdout.rpartition("sql ")[2].partition('"')[2].rpartition('"')[0]
    assert CliRunner().invoke(main, ["sql", str(store), query]).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, "--quiet"]).output == ""
    assert CliRunner().invoke(main, [*arguments, "--quiet", "--overwrite"]).output == ""
    assert CliRunner().invoke(main, ["sql", str(store), "select count(*) as n from runs", "--format", "csv"]).output == "n\n1\n"
