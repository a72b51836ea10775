"""Denoisers: conditions of every forward, patches that stay the same tokens step after step, pipelines as what they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

import moescope
from moescope.errors import InputError, ModelError, NotMoEError
from moescope.models import zoo
from moescope.models.packages import diffusers as package
from moescope.models.zoo.denoisers._parts_diffusion import denoise

COUNT = "select count(*), count(distinct sequence) from tokens"


def noise(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_same_patch_is_one_token_in_every_step(tmp_path: Path) -> None:
    model = zoo.build("dit_moe")
    with moescope.Tracer(model, tmp_path / "a.duckdb") as tracer:
        for _ in range(2):
            with tracer.denoising():
                denoise(model, noise(), steps=4)
        denoise(model, noise(), steps=4)
    with moescope.open(tmp_path / "a.duckdb") as store:
        # two images twice, and two new ones in each of the last four steps; 4 × 4 patches each
        assert store.rows(COUNT) == [((2 * 2 + 2 * 4) * 16, 2 * 2 + 2 * 4)]
        assert store.rows("select forward, value, sequence from conditions where kind = 'timestep' order by forward") == [
            (step, [1000.0, 750.0, 500.0, 250.0][step % 4], None) for step in range(12)
        ]
        again = store.rows("select token, count(distinct forward) from assignments where forward < 4 group by all")
        assert [n for _, n in again] == [4] * 32
        assert store.rows("select distinct unit, t.y, t.x, position from tokens t where sequence = 0 order by position") == [
            ("patch", p // 4, p % 4, p) for p in range(16)
        ]
        assert store.rows("select distinct stack from routers") == [("vision",)]


def test_conditions_of_every_sequence(tmp_path: Path) -> None:
    """Timesteps and classes that differ within a batch stand by their sequences; what is told stands too, and ends."""
    model = zoo.build("dit_moe")
    with moescope.Tracer(model, tmp_path / "a.duckdb") as tracer:
        with tracer.conditions(task="restore", guidance=4.5), tracer.conditions(stage=["rough", "fine"]):
            model(noise(), torch.tensor([900.0, 100.0]), class_labels=torch.tensor([3, 3]))
        model(noise(), torch.full((2,), 50.0))
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select forward, sequence, kind, value, label from conditions order by all") == [
            (0, 0, "stage", None, "rough"), (0, 0, "timestep", 900.0, None),
            (0, 1, "stage", None, "fine"), (0, 1, "timestep", 100.0, None),
            (0, None, "class", 3.0, None), (0, None, "guidance", 4.5, None), (0, None, "task", None, "restore"),
            (1, None, "timestep", 50.0, None),
        ]  # fmt: skip
        shares = store.rows(
            "select value, sum(share) from condition_load where kind = 'timestep' and layer = 0 group by all order by 1"
        )
        assert shares == [(v, pytest.approx(1.0)) for v in (50.0, 100.0, 900.0)]


def test_text_models_are_told_nothing_by_themselves(tmp_path: Path) -> None:
    model = zoo.build("mor")
    with moescope.Tracer(model, tmp_path / "a.duckdb"):
        model(**zoo.example_of(model))  # type: ignore[arg-type]
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select * from conditions") == []


@pytest.fixture
def wan() -> tuple[Any, dict[str, Any]]:
    return package.wan()


def test_a_pipeline_is_traced_from_its_first_call_on(wan: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    pipe, call = wan
    alone = pipe(**call).frames
    with moescope.Tracer(pipe, tmp_path / "a.duckdb") as tracer:
        made = [pipe(**call).frames for _ in range(2)]
    assert all(torch.equal(one, alone) for one in made)
    assert [p.identical for p in tracer.proof] == [True]
    assert torch.equal(pipe(**call).frames, alone)
    assert [vars(part).get("forward") for part in (pipe.transformer, pipe.transformer_2)] == [None, None]
    with moescope.open(tmp_path / "a.duckdb") as store:
        rows = store.rows(
            "select forward, expert_name, list(distinct token order by token) from assignments join experts e "
            "using (router, expert) "
            "group by all order by forward"
        )
        names = [["transformer", "transformer_2", "transformer_2", "transformer_2"][n % 8 // 2] for n in range(16)]
        assert rows == [(n, names[n], [0, 1] if n < 8 else [2, 3]) for n in range(16)]
        assert store.rows("select distinct unit from tokens") == [("sequence",)]


def test_other_pipelines_of_the_class_are_left_alone(wan: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    pipe, call = wan
    other, _ = package.wan()
    before = vars(type(pipe)).get("__call__")
    with moescope.Tracer(pipe, tmp_path / "a.duckdb"):
        other(**call)
        pipe(**{**call, "num_inference_steps": 1})
    assert vars(type(pipe)).get("__call__") is before
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select count(*) from forwards") == [(2,)]


def test_a_pipeline_that_is_not_run(wan: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="WanPipeline was never run inside the Tracer"),
        moescope.Tracer(wan[0], tmp_path / "a"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_without_a_router(wan: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    pipe, _ = wan
    pipe.register_modules(transformer_2=None)
    with pytest.raises(NotMoEError, match=r"none of the models of this WanPipeline \(transformer\) has a router"):
        moescope.Tracer(pipe, tmp_path / "a.duckdb")


def test_a_pipeline_whose_models_have_routers_both(wan: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    pipe, _ = wan
    pipe.transformer, pipe.transformer_2 = zoo.build("dit_moe"), zoo.build("ec_dit")
    with pytest.raises(InputError, match=r"several models of this WanPipeline have routers \(transformer, transformer_2\)"):
        moescope.Tracer(pipe, tmp_path / "a.duckdb")


def test_what_is_refused_at_the_first_call(wan: tuple[Any, dict[str, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    """The reason comes out of the pipeline's call, nothing is stored, and the pipeline is as it was."""
    pipe, call = wan
    monkeypatch.setattr("moescope.tracer.attaching.proved", lambda *_: (_ for _ in ()).throw(ModelError("not proved")))
    with pytest.raises(ModelError, match="not proved"), moescope.Tracer(pipe, tmp_path / "a.duckdb"):
        pipe(**call)
    assert list(tmp_path.iterdir()) == []
    assert [vars(part).get("forward") for part in (pipe.transformer, pipe.transformer_2)] == [None, None]
