"""Which half of classifier-free guidance a forward, or a sequence of its batch, is: said where the pipeline makes it plain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from diffusion_systems import own
from pipelines import PIPELINES
from torch import Tensor

import moescope
from moescope.tracer.sequences.token_rows import SequenceInfo

DiffusionPipeline = pytest.importorskip("diffusers").DiffusionPipeline
HALVES = "select forward, sequence, label, value from conditions where kind = 'guidance' order by all"


def traced(pipe: Any, call: dict[str, Any], path: Path, told: dict[str, Any] | None = None, **settings: Any) -> Any:
    with moescope.Tracer(pipe, path, **settings) as tracer:
        if told is None:
            pipe(**call)
        else:
            pipe(**{**call, "num_inference_steps": 1})  # else there is no one to tell yet
            with tracer.conditions(**told):
                pipe(**call)
    return moescope.open(path)


def heard(pipe: Any, run: Callable[[], Any]) -> list[list[str]]:
    """Of every call of its denoisers the half of each sample, by the sign of the embeddings that it was given."""
    found: list[list[str]] = []

    def look(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        text = next(v for n, v in given.items() if n in ("encoder_hidden_states", "encoder_hidden_states_t5"))
        found.append(["conditional" if float(own.min()) > 0 else "unconditional" for own in text])

    handles = [
        part.register_forward_pre_hook(look, with_kwargs=True)
        for name in ("transformer", "transformer_2") if (part := getattr(pipe, name, None)) is not None
    ]  # fmt: skip
    run()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_halves(name: str, tmp_path: Path) -> None:
    """Two steps with guidance: what is stored is what the embeddings say."""
    pipe, call = PIPELINES[name]()
    call |= {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 4.0}
    truth = heard(pipe, lambda: pipe(**call))
    assert sorted({half for halves in truth for half in halves}) == ["conditional", "unconditional"]
    store = traced(pipe, call, tmp_path / "a.duckdb")
    expected: list[tuple[Any, ...]] = []
    for forward, halves in enumerate(truth):
        one = len(set(halves)) == 1
        expected += [(forward, None, halves[0], None)] if one else [(forward, s, h, None) for s, h in enumerate(halves)]
    assert store.rows(HALVES) == expected
    shares = store.rows(
        "select label, sum(share) from condition_load where kind = 'guidance' group by router, label order by 1"
    )
    assert {label for label, _ in shares} == {"conditional", "unconditional"}
    assert [share for _, share in shares] == [pytest.approx(1.0)] * len(shares)


@pytest.mark.parametrize("name", PIPELINES)
def test_nothing_without_guidance(name: str, tmp_path: Path) -> None:
    """Negative prompts are there, but at scale 1 they are not used."""
    pipe, call = PIPELINES[name]()
    call |= {"num_inference_steps": 1, "output_type": "latent", "guidance_scale": 1.0}
    assert traced(pipe, call, tmp_path / "a.duckdb").rows(HALVES) == []


@pytest.mark.parametrize("name", ["hidream", "nucleus"])
def test_the_caller_goes_before(name: str, tmp_path: Path) -> None:
    pipe, call = PIPELINES[name]()
    call |= {"num_inference_steps": 1, "output_type": "latent", "guidance_scale": 4.0}
    rows = traced(pipe, call, tmp_path / "a.duckdb", told={"guidance": "mine"}).rows(HALVES)
    calls = len(heard(pipe, lambda: pipe(**call)))
    assert [row for row in rows if row[0] >= calls] == [(calls + n, None, "mine", None) for n in range(calls)]


def test_inputs_of_the_callers_own(tmp_path: Path) -> None:
    """A pipeline that is proved on given inputs is traced as one all the same: patches are the same in all steps."""
    pipe, call = pipelines.nucleus()
    call |= {"num_inference_steps": 2, "output_type": "latent"}
    store = traced(pipe, call, tmp_path / "a.duckdb", inputs=pipelines.package.nucleus()[1])
    assert [row[2] for row in store.rows(HALVES)] == ["conditional", "unconditional"] * 2
    assert store.rows("select count(*) from tokens") == [(32,)]


class Loop(DiffusionPipeline):
    """A loop of somebody's own around DiT-MoE; `order`: what is put behind what, anew in each step."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.transformer, self.order = own("dit_moe").model, order

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.transformer}

    def __call__(self, latents: Tensor, prompt_embeds: Tensor, negative_prompt_embeds: Tensor) -> None:
        for t in (900.0, 100.0):
            both = {"negative": negative_prompt_embeds, "prompt": prompt_embeds}
            labels = torch.cat([both[name] for name in self.order.split()])
            self.transformer(latents.repeat(len(labels) // len(latents), 1, 1, 1), torch.full((len(labels),), t), labels)


LOOPS = {
    "negative prompt": ["unconditional"] * 2 + ["conditional"] * 2,
    "prompt negative": ["conditional"] * 2 + ["unconditional"] * 2,
    "negative": ["unconditional"],
    "prompt": ["conditional"],
    "prompt negative negative": None,
}


@pytest.mark.parametrize(("order", "same"), [*((order, False) for order in LOOPS), ("negative prompt", True), ("prompt", True)])
def test_loops_of_somebodys_own(order: str, same: bool, tmp_path: Path) -> None:
    """By what is given, not by a custom; and nothing where prompts are the negative ones too."""
    call = {"latents": torch.randn(2, 3, 16, 16), "prompt_embeds": torch.tensor([1, 2]),
            "negative_prompt_embeds": torch.tensor([1, 2] if same else [9, 9])}  # fmt: skip
    halves = None if same else LOOPS[order]
    rows = traced(Loop(order), call, tmp_path / "a.duckdb").rows(HALVES)
    if halves is None:
        assert rows == []
    else:
        names = [None] if len(halves) == 1 else range(4)
        assert rows == [(f, s, half, None) for f in range(2) for s, half in zip(names, halves)]


class Classes(Loop):
    """As diffusers' DiTPipeline, which puts the classes first and none behind them."""

    def __call__(self, latents: Tensor, class_labels: Tensor) -> None:  # type: ignore[override]
        class_null = torch.full_like(class_labels, 10)
        class_labels_input = torch.cat([class_labels, class_null], 0)
        self.transformer(latents.repeat(2, 1, 1, 1), torch.full((4,), 10.0), class_labels_input)


def test_classes_before_none(tmp_path: Path) -> None:
    call = {"latents": torch.randn(2, 3, 16, 16), "class_labels": torch.tensor([3, 5])}
    rows = traced(Classes(""), call, tmp_path / "a.duckdb").rows(HALVES)
    assert [row[2] for row in rows] == ["conditional"] * 2 + ["unconditional"] * 2


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("order", ["negative prompt", "prompt negative"])
def test_prompts_of_a_doubled_batch(order: str, pictures: int, tmp_path: Path) -> None:
    """Sequences of a doubled batch bear the right prompt's source, and its text where the prompt was given."""
    loop = Loop(order)
    prompt = torch.tensor([1, 2]).repeat_interleave(pictures)
    call = {"latents": torch.randn(2 * pictures, 3, 16, 16), "prompt_embeds": prompt, "negative_prompt_embeds": prompt * 0 + 9}
    infos = [SequenceInfo(row=n, document=f"d{n}", text=f"prompt {n}", labels={"domain": "x"}) for n in range(2)]
    with moescope.Tracer(loop, tmp_path / "a.duckdb") as tracer, tracer.batch(infos):
        loop(**call)
    with moescope.open(tmp_path / "a.duckdb") as store:
        rows = store.rows("select sequence, source_row, beam, document, text, domain from sequences order by 1")
        classes = store.rows("select sequence, value from conditions where kind = 'class' and forward = 0 order by 1")
    expected = []
    for name in order.split():
        for n in range(2):
            for beam in range(pictures):
                text = f"prompt {n}" if name == "prompt" else None
                expected.append((len(expected), n, beam, f"d{n}", text, "x"))
    assert rows == expected
    given = dict(classes)
    assert all((given[s] == 9) == (text is None) for s, _, _, _, text, _ in rows)
