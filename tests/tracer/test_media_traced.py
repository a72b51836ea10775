"""Texts with pictures through a model's own processor: from every way in, what labels become of, and what is refused."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from media_families import made, template, tokenizer
from media_recount import PICTURES, TEXT, recounted
from PIL import Image

import moescope
from moescope import analyses
from moescope.cli import main
from moescope.errors import InputError, ModelError, MoescopeError
from moescope.inputs import read
from moescope.interventions.data import Batches
from moescope.models.loading import Loaded
from moescope.models.multimodal.asking import ask

Rows = list[list[tuple[Any, ...]]]


def picture(name: str) -> np.ndarray:
    down, across = PICTURES[name]
    return (np.indices((down, across, 3)).sum(0) * 5 % 256).astype(np.uint8)


WIDE, SMALL = picture("wide"), picture("small")


@pytest.fixture(scope="module")
def llava() -> tuple[Any, Any]:
    """Mixtral that sees: 36 tokens a picture."""
    return made("llava")


@pytest.fixture(scope="module")
def folder(llava: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as people have it, and pictures beside a data file."""
    home = tmp_path_factory.mktemp("llava")
    for part in llava:
        part.save_pretrained(home / "model")
    (home / "pics/dog").mkdir(parents=True)
    Image.fromarray(WIDE).save(home / "pics/wide.png")
    Image.fromarray(SMALL).save(home / "pics/dog/small.png")
    rows = [{"text": "one", "image": "pics/wide.png", "topic": "x"}, {"text": "none"},
            {"text": "two", "images": ["pics/dog/small.png", "pics/wide.png"]}]  # fmt: skip
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


@pytest.fixture
def traced(llava: tuple[Any, Any], tmp_path: Path) -> Callable[..., Any]:
    def run(records: Any, **more: Any) -> Any:
        model, processor = llava
        moescope.trace(model, records, tmp_path / "a.duckdb", overwrite=True, **{"processor": processor, **more})
        return moescope.open(tmp_path / "a.duckdb")

    return run


def rows(store: Any, *kinds: str) -> Rows:
    """Of every sequence (id, unit, y, x, labels of kinds ...) by position."""
    more = "".join(f", max(l.label) filter (kind = '{kind}')" for kind in kinds)
    found: dict[int, list[tuple[Any, ...]]] = {}
    query = f"""select t.sequence, t.vocab_id, t.unit, t.y, t.x{more} from tokens t left join token_labels l using (token)
group by t.sequence, t.position, t.vocab_id, t.unit, t.y, t.x order by t.sequence, t.position"""
    for sequence, *token in store.rows(query):
        found.setdefault(sequence, []).append(tuple(token))
    return list(found.values())


def truth(processor: Any, text: str, names: list[str], answer: bool = False) -> list[tuple[Any, ...]]:
    """(id, unit, y, x, modality, medium) by the processor, called by hand."""
    if not names:
        return [(one, "text", None, None, "text", None) for one in processor.tokenizer(text)["input_ids"]]
    parts = [*({"type": "image"} for _ in names), {"type": "text", "text": text}]
    said = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=answer)
    ids = processor(text=[said], images=[picture(name) for name in names])["input_ids"][0]
    return [
        (one if token == TEXT else None, token[0], token[3], token[4], token[0], None if token == TEXT else f"image {token[1]}")
        for one, token in zip(ids, recounted("llava", "image", ids, {}, names))
    ]


def command(*words: Any) -> Any:
    return CliRunner().invoke(main, ["trace", *map(str, words), "--quiet"])


def test_a_file_beside_pictures(folder: Path, llava: tuple[Any, Any], tmp_path: Path) -> None:
    done = command(folder / "model", "--data", folder / "pairs.jsonl", "--store", tmp_path / "a.duckdb")
    assert (done.exit_code, done.output) == (0, "")
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert rows(store, "modality", "medium") == [
            truth(llava[1], "one", ["wide"]), truth(llava[1], "none", []), truth(llava[1], "two", ["small", "wide"])
        ]  # fmt: skip
        assert store.rows("select source_row, label from sequence_labels join sequences using (sequence)") == [(0, "x")]
        assert store.rows("select sequence, medium, height, width from pictures order by all") == [
            (0, "image 0", 24, 24), (2, "image 0", 24, 24), (2, "image 1", 24, 24),  # as it sees them: cropped to a square
        ]  # fmt: skip


def test_a_folder_with_a_prompt_is_gone_on_with(folder: Path, llava: tuple[Any, Any], tmp_path: Path) -> None:
    options = ["--prompt", "Say it.", "--generate", 3, "--pictures", 1]
    done = command(folder / "model", "--data", folder / "pics", "--store", tmp_path / "a.duckdb", *options)
    assert (done.exit_code, done.output) == (0, "")
    with moescope.open(tmp_path / "a.duckdb") as store:
        for found, name in zip(rows(store, "modality", "medium"), ("small", "wide"), strict=True):
            prompt = truth(llava[1], "Say it.", [name], answer=True)
            assert found[: len(prompt)] == prompt
            assert [token[1:] for token in found[len(prompt) :]] == [("text", None, None, "text", None)] * 2
        assert store.rows("select label from sequence_labels") == [("dog",)]
        assert store.rows("select count(*) from pictures") == [(1,)]


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 3}, {"batch_tokens": 100, "stream": True}])
def test_batches_of_any_kind(more: dict[str, Any], traced: Callable[..., Any], llava: tuple[Any, Any]) -> None:
    """Rows of each record are the same, whatever it is padded with; from a generator too."""
    records = [{"text": "one", "image": WIDE}, {"text": "none"}, {"text": "two", "images": [SMALL, WIDE]}, {"text": "no"}]
    with traced((row for row in records), **more) as store:
        found = dict(
            zip((n for (n,) in store.rows("select source_row from sequences order by sequence")), rows(store, "medium"))
        )
        experts = store.rows(
            "select source_row, position, r.layer, expert from assignments join tokens t using (token) join sequences s using "
            "(sequence) join routers r on r.router = assignments.router where rank = 0 order by all"
        )
    names = (["wide"], [], ["small", "wide"], [])
    assert [found[n] for n in range(4)] == [
        [token[:4] + token[5:] for token in truth(llava[1], row["text"], own)] for row, own in zip(records, names)
    ]
    with traced(records) as store:
        assert len(experts) == store.rows("select count(*) from decisions")[0][0]


def test_labels_around_a_picture(llava: tuple[Any, Any], traced: Callable[..., Any]) -> None:
    """Words and spans of a text are those characters, where the processor's own word or the general one stands among them."""
    words = tokenizer({"<image>": "<|pic|>"}, image_token="<|pic|>")
    talk = template().replace("<{{ p.type }}>", "<|pic|>")
    other = told_by(llava[1], talk, words)
    text = "a red <image> fox"
    labels = {"spans": [{"start": 2, "end": 5, "kind": "colour", "value": "warm"}],
              "words": [{"start": 14, "end": 17, "pos": "noun"}]}  # fmt: skip
    for said, processor in ((text, other), (text.replace("<image>", "<|pic|>"), other), (text, llava[1])):
        moved = len(said) - len(text)
        own = {**labels, "words": [{"start": 14 + moved, "end": 17 + moved, "pos": "noun"}]}
        with traced([{"text": said, "image": SMALL, **own}], processor=processor) as store:
            (found,) = rows(store, "colour", "pos")
        ids = [token[0] for token in found]
        assert len([one for one in ids if one is None]) == 36
        marked = {kind: bytes(processor.tokenizer.decode([t[0] for t in found if t[place]]), "utf8") for kind, place in
                  (("colour", 4), ("pos", 5))}  # fmt: skip
        assert marked == {"colour": b"red", "pos": b"fox"}


def test_a_conversation_with_pictures(llava: tuple[Any, Any], traced: Callable[..., Any]) -> None:
    """A picture is of whoever shows it, also in the middle; what the model says is the assistant's."""
    see = {"type": "image"}
    talk = [
        {"role": "user", "content": [see, {"type": "text", "text": "what"}]}, {"role": "assistant", "content": "fox"},
        {"role": "user", "content": [{"type": "text", "text": "and"}, see]},
    ]  # fmt: skip
    with traced([{"messages": talk, "images": [SMALL, WIDE]}], generate=3) as store:
        (found,) = rows(store, "role", "turn", "medium")
    said = [(role, turn, medium) for _, unit, *_, role, turn, medium in found if unit == "image"]
    assert said == [("user", "0", "image 0")] * 36 + [("user", "2", "image 1")] * 36
    text = "".join(role[0] for _, unit, *_, role, _, _ in found if unit == "text")
    assert text == "t" + "u" * 4 + "tt" + "a" * 3 + "tt" + "u" * 3 + "tt" + "aa"  # t: the template's own


def test_modalities_are_compared(traced: Callable[..., Any]) -> None:
    with traced([{"text": f"picture {n}", "image": WIDE, "document": str(n)} for n in range(3)], logits=1.0) as store:
        frame = analyses.run("modality", store).frames["figures"]
        told = analyses.run("specialization", store).frames["figures"]
        load = store.rows("select label, expert, assignments, share, overall from token_label_load "
                          "where router = 0 and kind = 'modality' order by all")  # fmt: skip
        ran = Counter(store.rows("select unit, expert from assignments join tokens using (token) where router = 0"))
    subsets = {f"modality={one}" for one in ("image", "text")}
    for name in ("local entropy (nats)", "global entropy (nats)"):
        assert subsets == set(frame[frame["name"] == name]["subset"])
    assert "modality" in set(told["subset"])
    units, experts = Counter[str](), Counter[int]()
    for (unit, expert), n in ran.items():
        units[unit] += n
        experts[expert] += n
    assert [row[:3] for row in load] == sorted((unit, expert, n) for (unit, expert), n in ran.items())
    for unit, expert, n, share, overall in load:
        assert (share, overall) == pytest.approx((n / units[unit], experts[expert] / units.total()))


def test_a_run_with_pictures_is_not_ablated_without_them(llava: tuple[Any, Any], traced: Callable[..., Any]) -> None:
    with traced([{"text": "one", "image": WIDE}]) as store, pytest.raises(InputError, match="is of texts with image"):
        Batches(store, 0, Loaded("llava", llava[0]))


class Failing:
    """A processor that breaks on what it is given."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, **_: Any) -> Any:
        raise RuntimeError("mean must have 1 elements\nif it is an iterable, got 3")


def told_by(processor: Any, talk: str, words: Any = None) -> Any:
    """The same processor with another template, and another tokenizer."""
    return type(processor)(
        processor.image_processor, words or processor.tokenizer, patch_size=4, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=talk,
    )  # fmt: skip


ONE = [{"text": "fine"}, {"text": "see", "image": WIDE}]
NONE = "inputs, row 1 has an image beside its text, and LlavaForConditionalGeneration was given without a processor; give its "
DECODED = "inputs, row 0, image 0 is not an image that Pillow can read: repair it or leave it out."
FAILED = "inputs, row 1: Failing fails (RuntimeError: mean must have 1 elements if it is an iterable, got 3); leave it out"
LONG = "inputs, row 1 is 41 tokens with its images, which cannot be cut into windows, and 20 are the most; give less or smaller"
OTHER = "the processor is CLIPImageProcessorPil, which makes no inputs of texts with media; give its own"
Case = tuple[list[dict[str, Any]], Callable[[Any], dict[str, Any]], str]
BAD: dict[str, Case] = {
    "no processor": (ONE, lambda p: {"processor": None, "tokenizer": p.tokenizer}, NONE),
    "no ears": (
        [{"text": "hear", "audio": np.zeros(10)}], lambda p: {},
        "inputs, row 0 has audio beside its text, which LlavaProcessor does not take (it takes image)",
    ),
    "more words": (
        [{"text": "<image> <image>", "image": WIDE}], lambda p: {},
        "inputs, row 0: its text speaks of 2 images and there are 1; make them alike",
    ),
    "less words": (
        [{"text": "<image>", "images": [WIDE, SMALL]}], lambda p: {},
        "inputs, row 0: its text speaks of 1 images and there are 2; make them alike",
    ),
    "broken picture": ([{"text": "a", "image": b"x"}], lambda p: {}, DECODED),
    "zero size": (
        [{"text": "a", "image": WIDE[:0]}], lambda p: {}, "inputs, row 0, image 0 has no pixels: it is 40 × 0; leave it out",
    ),
    "a processor that fails": (ONE, lambda p: {"processor": Failing(p)}, FAILED),
    "a template that fails": (
        ONE, lambda p: {"processor": told_by(p, "{{ raise_exception('no') }}")},
        "inputs, row 1: the chat template of LlavaProcessor fails (",
    ),
    "too long": (ONE, lambda p: {"max_length": 20}, LONG),
    "ids": (
        [{"input_ids": [1, 2], "image": WIDE}], lambda p: {},
        "inputs, row 0 has ids and images, of which no processor makes inputs; give its text",
    ),
    "another kind of processor": (ONE, lambda p: {"processor": p.image_processor}, OTHER),
}  # fmt: skip


@pytest.mark.parametrize("form", BAD)
def test_one_sentence_and_nothing_written(
    form: str, llava: tuple[Any, Any], traced: Callable[..., Any], tmp_path: Path
) -> None:
    records, more, said = BAD[form]
    with pytest.raises(MoescopeError) as caught:
        traced(records, **more(llava[1]))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["more words", "broken picture", "a processor that fails", "too long"])
def test_bad_ones_are_left_out_and_counted(form: str, llava: tuple[Any, Any], traced: Callable[..., Any]) -> None:
    records, more, said = BAD[form]
    with traced([*records, {"text": "last"}], reading={"skip_bad": True}, **more(llava[1])) as store:
        assert store.rows("select source_row from sequences order by 1") == [(0,)] * (len(records) - 1) + [(len(records),)]
        ((warnings,),) = store.rows("select warnings from runs")
    assert any(said.rstrip(".")[:60] in one for one in json.loads(warnings))


def test_a_model_that_fails_names_the_rows(
    llava: tuple[Any, Any], traced: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, *_: Any, **__: Any) -> Any:
        raise ValueError("Image features and image tokens do not match")

    monkeypatch.setattr(type(llava[0].model), "get_image_features", broken)
    with pytest.raises(ModelError) as caught:
        traced(ONE)
    assert str(caught.value).startswith("LlavaForConditionalGeneration fails on what LlavaProcessor makes of inputs, row 1 (")


def test_what_a_processor_is_asked(llava: tuple[Any, Any]) -> None:
    """Without a template the words for media stand in the text."""
    (example,) = read([{"text": "see", "images": [WIDE, SMALL]}]).examples
    bare = Failing(llava[1])
    bare.chat_template = None
    assert ask(bare, example, False).asked.text == "<image><image>see"
    assert ask(llava[1], replace(example, text="<image>a<image>"), False).asked.text == "<image>a<image>"
    assert ask(llava[1], example, True).asked.text == "<user><image><image>see</s><assistant>"
