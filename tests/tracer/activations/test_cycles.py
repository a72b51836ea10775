"""Recursive models: what fires again and again in one forward pass is found, and its states are summed up cycle by cycle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from small import hrm, ids, mixtral
from torch import nn

import moescope
from moescope import analyses
from moescope.analyses.dimensionality import participation_ratio
from moescope.cli import main
from moescope.errors import AnalysisError, InputError, NotMoEError
from moescope.store.integrity.verify import verify
from moescope.tracer.activations.recursive import _short, repeated

ROWS = "select subset, iteration, estimator, value, n, units from measures where iteration is not null order by all"
States = dict[tuple[str, int], list[tuple[int, np.ndarray]]]


def seen(model: Any, names: list[str], run: Callable[[], object], real: Callable[[int], np.ndarray]) -> States:
    """By hooks of the test's own: (sequence, state) of every firing; `real(forward)` is a mask (sequences, places)."""
    found: States = {}
    fired: dict[str, int] = {}
    forward = -1

    def begins(*_: Any) -> None:
        nonlocal forward
        forward += 1
        fired.clear()

    def keep(name: str, output: torch.Tensor) -> None:
        number = fired[name] = fired.get(name, -1) + 1
        for sequence, place in zip(*np.nonzero(real(forward))):
            found.setdefault((name, number), []).append((int(sequence), output[sequence, place].double().numpy()))

    handles = [model.register_forward_pre_hook(begins)]
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_hook(lambda _, __, o, n=name: keep(n.rpartition(".")[2], o)))
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return found


def naive(states: np.ndarray) -> float:
    spectrum = np.linalg.eigvalsh(np.cov(states.T))
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


def figures(store: Path) -> dict[tuple[str, int, str], tuple[float, int, int]]:
    with moescope.open(store) as opened:
        assert [check for check in verify(opened) if check.broken] == []
        return {(subset, i, estimator): (value, n, units) for subset, i, estimator, value, n, units in opened.rows(ROWS)}


BOTH = ["model.L_module", "model.H_module"]
FIRINGS = [("H_module", 0), ("H_module", 1), *(("L_module", i) for i in range(6))]


def test_every_cycle_by_hand(tmp_path: Path) -> None:
    """Two forwards of other sequences, padding left out; with two tokens a sequence all states are drawn."""
    model, x = hrm(), ids(9, 2)
    mask = torch.ones_like(x)
    mask[2:4, 0] = 0
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
        model(x[:5], attention_mask=mask[:5])
        model(x[5:], attention_mask=mask[5:])
    found = figures(tmp_path / "a.duckdb")
    states = seen(model, BOTH, lambda: model(x, attention_mask=mask), lambda _: mask.numpy() > 0)
    assert sorted(states) == FIRINGS == sorted({key[:2] for key in found})
    unbiased = {}
    for key, rows in states.items():
        all_of_it, groups = np.stack([state for _, state in rows]), np.array([sequence for sequence, _ in rows])
        unbiased[key] = participation_ratio(all_of_it, groups=groups)
        assert found[(*key, "naive")] == (pytest.approx(naive(all_of_it), rel=1e-5), 16, 9)
        assert found[(*key, "unbiased")] == (pytest.approx(unbiased[key], rel=1e-5), 16, 9)
    rows = moescope.open(tmp_path / "a.duckdb").rows(
        "select router, layer, expert, subset, iteration, estimator, chance, n, units, value, ci_low < value, ci_high > value "
        "from measures where name = 'slow_over_fast'"
    )
    ratio = unbiased["H_module", 1] / unbiased["L_module", 5]
    where = (None, None, None, "H_module over L_module", None, "unbiased", 1.0, 16, 9)
    assert rows == [(*where, pytest.approx(ratio, rel=1e-5), True, True)]


def test_generation_counts_anew_in_each_forward_and_keeps_its_sequences(tmp_path: Path) -> None:
    """A prompt and five steps of one token: no cycle beyond the model's, and a sequence is one unit through all its steps.

    What is fed for a sequence that has ended is padding, as in the tokens of the store.
    """
    model, x = hrm(), ids(6, 3)
    mask = torch.ones_like(x)
    mask[1, 0] = 0
    full = model.generate(x, attention_mask=mask, max_new_tokens=6, do_sample=False)[:, 3:]
    stop = int(full[4, 1])
    settings = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": stop, "pad_token_id": 0}
    model.generation_config.eos_token_id = stop
    new = model.generate(x, **settings)[:, 3:].numpy()
    fed = new[:, :-1]
    ended = np.cumsum(fed == stop, axis=1) - (fed == stop) > 0
    assert ended[4, 2:].all()
    with moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
        model.generate(x, **settings)
    found = figures(tmp_path / "a.duckdb")
    states = seen(
        model, BOTH, lambda: model.generate(x, **settings), lambda f: mask.numpy() > 0 if f == 0 else ~ended[:, f - 1 : f]
    )
    tokens = moescope.open(tmp_path / "a.duckdb").rows("select tokens, forwards, sequences from runs")
    assert tokens == [(17 + int((~ended).sum()), new.shape[1], 6)]
    assert sorted({key[:2] for key in found}) == FIRINGS
    for key, rows in states.items():
        value = naive(np.stack([state for _, state in rows]))
        assert found[(*key, "naive")] == (pytest.approx(value, rel=1e-4), tokens[0][0], 6)


def test_forwards_that_are_not_recorded_are_not_summed_up(tmp_path: Path) -> None:
    model = hrm()
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"], every=2):
        for seed in range(4):
            model(ids(3, 5, seed))
    assert {(n, units) for _, n, units in figures(tmp_path / "a.duckdb").values()} == {(30, 6), (12, 6)}
    assert moescope.open(tmp_path / "a.duckdb").rows("select forwards, tokens from runs") == [(2, 30)]


class Planted(nn.Module):
    """A core that is called twice: its states use 4 dimensions the first time and 16 the second."""

    def __init__(self, again: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.again = nn.Embedding(3000, 32), again
        turn = nn.Linear(32, 32, bias=False)
        nn.init.orthogonal_(turn.weight)
        self.core = nn.Sequential(turn)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        for width in (4, 16)[: self.again]:
            x = self.core(self.words(input_ids) * (torch.arange(32) < width))
        return x


def test_planted_dimensions(tmp_path: Path) -> None:
    x = torch.randint(0, 3000, (200, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), moescope.Tracer(Planted(), tmp_path / "a.duckdb", activations=["dimensionality"]) as tracer:
        tracer.model(x)
    store = moescope.open(tmp_path / "a.duckdb")
    low, high = (
        store.rows("select value, ci_low, ci_high, subset from measures where iteration = ? and estimator = 'unbiased'", [i])[0]
        for i in (0, 1)
    )
    assert low[:3] == (pytest.approx(4, rel=0.05), pytest.approx(3.7, abs=0.3), pytest.approx(4.2, abs=0.3))
    assert high[1] < 16 < high[2]
    assert low[3] == high[3] == "core"
    assert store.rows("select count(*) from measures where name = 'slow_over_fast'") == [(0,)]


def llama() -> Any:
    sizes = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=1)).eval()


@pytest.mark.parametrize("make", [mixtral, llama, lambda: Planted(1)], ids=["mixtral", "llama", "called once"])
def test_a_plain_model_has_no_cycle(make: Callable[[], nn.Module]) -> None:
    assert repeated(make(), {"input_ids": ids()}) == []


def test_routers_and_cycles_together(tmp_path: Path) -> None:
    """A Mixtral whose second layer runs twice; what its router did the second time is said to be left out of the figures."""
    model, x = mixtral(use_cache=False), ids(8, 6)
    model.model.layers.append(model.model.layers[1])
    model.config.num_hidden_layers = 3
    assert [(r.path, r.short, r.stack) for r in repeated(model, {"input_ids": x})] == [
        ("model.layers.1", "layers.1", "decoder")
    ]
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
        model(x)
    states = seen(model, ["model.layers.1"], lambda: model(x), lambda _: np.ones((8, 6), bool))
    assert {key: row for key, row in figures(tmp_path / "a.duckdb").items() if key[2] == "naive"} == {
        ("layers.1", i, "naive"): (pytest.approx(naive(np.stack([s for _, s in states["1", i]])), rel=1e-5), 48, 8)
        for i in (0, 1)
    }
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select tokens, decisions from runs") == [(48, 144)]
    assert store.rows("select layer, n from measures where subset = 'residual' and iteration is null order by all") == [
        (0, 16), (0, 48), (1, 16), (1, 96),
    ]  # fmt: skip
    notes = analyses.run("dimensionality", store).notes
    assert [n for n in notes if n.startswith("Routers fired up to 2 times for a token in one forward pass;")] != []


def test_short_names() -> None:
    """The shortest end that begins with a word and is no other's."""
    names = ["encoder.core", "decoder.core", "slow", "layers.3", "layers.5", "a.b.0.c"]
    assert [_short(name, names) for name in names] == ["encoder.core", "decoder.core", "slow", "layers.3", "layers.5", "c"]


def test_refusals(tmp_path: Path) -> None:
    """One sentence, and nothing is written."""
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (hrm(), {}, NotMoEError, r"model.L_module and model.H_module\).* add --measure dimensionality"),
        (hrm(), {"activations": ["importance"]}, NotMoEError, "add --measure dimensionality"),
        (hrm(), {"activations": ["dimensionality"], "layers": [3]}, InputError, "no router in layer 3.* are none"),
        (llama(), {"activations": ["dimensionality"]}, NotMoEError, "has no router that moescope can find"),
        (Planted(1), {"activations": ["dimensionality"]}, NotMoEError, "has no router that moescope can find"),
    ]
    for model, settings, kind, words in cases:
        with pytest.raises(kind, match=words) as caught, moescope.Tracer(model, tmp_path / "a.duckdb", **settings):
            pass
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


class Wandering(Planted):
    """States that are not those of the input's tokens from the second forward on."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.words(input_ids)
        x = x if input_ids.shape[1] < 9 else torch.cat([x, x], 1)
        return self.core(self.core(x))


def test_states_of_other_tokens_are_left_out_and_said(tmp_path: Path) -> None:
    with torch.no_grad(), moescope.Tracer(Wandering(), tmp_path / "a.duckdb", activations=["dimensionality"]) as tracer:
        tracer.model(ids(5, 4))
        tracer.model(ids(5, 9))
    assert {row[1:] for key, row in figures(tmp_path / "a.duckdb").items() if key[2] == "naive"} == {(20, 5)}
    said = moescope.open(tmp_path / "a.duckdb").rows("select warnings->>1 from runs")
    assert said == [("states of core were left out wherever they were not those of the input's sequences and tokens",)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two tiny HRMs over the same ids, by the command line."""
    folder = tmp_path_factory.mktemp("hrm")
    np.savez(folder / "data.npz", input_ids=ids(12, 7).numpy())
    for seed in range(2):
        hrm(seed).save_pretrained(folder / f"{seed}")
        line = f"trace {folder / str(seed)} --data {folder / 'data.npz'} --store {folder / 'run.duckdb'}"
        done = CliRunner().invoke(main, [*line.split(), "--measure", "dimensionality"])
        assert done.exit_code == 0, done.output
        assert "no router; 84 tokens of 12 sequences in 2 forwards" in " ".join(done.stdout.split())
        assert "│ L_module │ 6     │" in done.stdout
        query = done.stdout.rpartition("sql ")[2].partition('"')[2].rpartition('"')[0]
        assert CliRunner().invoke(main, ["sql", str(folder / "run.duckdb"), query]).exit_code == 0
    return folder / "run.duckdb"


def test_commands_over_a_store_without_routers(store: Path) -> None:
    said = {name: CliRunner().invoke(main, [name, str(store)]) for name in ("info", "verify", "report")}
    assert [(name, done.exit_code) for name, done in said.items() if done.exit_code] == []
    assert ": no router (states of recursive modules), 84 tokens\n" in said["info"].output
    everything = CliRunner().invoke(main, ["analyze", "--all", str(store)])
    assert everything.exit_code == 0
    assert "load: run 1 is of a model without routers, so nothing was routed; ask dimensionality" in everything.output
    with pytest.raises(AnalysisError, match="without routers"):
        analyses.run("load", store)


def test_figures_with_a_control(store: Path) -> None:
    """Cycles are counted from 1; the control's stand beside them."""
    answer = analyses.run("dimensionality", store, 1, control=0)
    with moescope.open(store) as opened:
        kept = "select value, ci_low, n from measures where run = ? and subset = 'H_module' and iteration = 1 and estimator = ?"
        rows = [opened.rows(kept, [run, "unbiased"])[0] for run in (1, 0)]
    for subset, row in zip(("H_module, cycle 2", "H_module, cycle 2, control run 0"), rows):
        found = answer.figures("participation_ratio", subset=subset, estimator="unbiased")
        assert [tuple(r) for r in found[["value", "ci_low", "n"]].to_numpy()] == [row]
    assert len(answer.figures("participation_ratio")) == 32
    ratio = answer.figures("slow_over_fast")
    assert list(ratio["subset"]) == ["H_module over L_module", "H_module over L_module, control run 0"]
    assert ((ratio["ci_low"] < ratio["value"]) & (ratio["value"] < ratio["ci_high"])).all()
    assert "cycle" in answer.sql["states"] or "measures" in answer.sql["states"]


def test_too_few_sequences_for_a_comparison(tmp_path: Path) -> None:
    model = hrm()
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb", activations=["dimensionality"]):
        model(ids(3, 5))
    answer = analyses.run("dimensionality", tmp_path / "a.duckdb")
    assert set(answer.figures()["estimator"]) == {"naive"}
    assert any(note.startswith("No slow_over_fast: it takes four sequences") for note in answer.notes)
