"""Word labels restored from the store: the tokens that carry a word's label spell that word, whatever was done to the text."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampled import how_many
from small import ids, mixtral
from texts import LETTERS, MAKES, MODELS, Loaded, dataset, loaded, traced

import moescope
from moescope.tracer import SequenceInfo

TEXTS = [["ab", "caé", "日cd", "b", "cab"], ["dea"], ["cde", "𝄞", "ab", "bcd"]]
Rows = list[dict[str, Any]]
Key = tuple[int, int, int, int]


def of_words(rows: Rows) -> dict[Key, list[int]]:
    """{(row, number of the word, beam, pass): ids} of labelled tokens as in the text; without a cache it passes often."""
    passes: dict[Any, list[int]] = defaultdict(list)
    for one in rows:
        if one["sequence"] not in (known := passes[one["row"], one["part"], one["beam"]]):
            known.append(one["sequence"])
    found: dict[Key, list[int]] = defaultdict(list)
    for one in sorted(rows, key=lambda r: (r["row"], r["part"], r["beam"], r["sequence"], r["position"])):
        if one["number"] is not None:
            number = passes[one["row"], one["part"], one["beam"]].index(one["sequence"])
            found[one["row"], one["word"], one["beam"], number].append(one["id"])
    return dict(found)


def letters(reads: Loaded, some: list[int]) -> str:
    """What ids spell, in the tokenizer's own letters, without its marks of white space and of parts."""
    joined = "".join(reads.tokenizer.convert_ids_to_tokens(some))
    for mark in ("▁", "Ġ", "##", " "):
        joined = joined.replace(mark, "")
    return joined


def spelled(reads: Loaded, rows: Rows) -> dict[Key, str]:
    """What the labelled tokens of every word spell."""
    return {key: letters(reads, some) for key, some in of_words(rows).items()}


def whole(reads: Loaded, words: list[list[str]], beams: int = 1, passes: int = 1) -> dict[Key, str]:
    """What every word must spell."""
    return {
        (row, number, beam, again): letters(reads, reads.tokenizer(word, add_special_tokens=False)["input_ids"])
        for row, some in enumerate(words)
        for number, word in enumerate(some)
        for beam in range(beams)
        for again in range(passes)
    }


def but_last(rows: Rows) -> Rows:
    """The encoder's rows that a decoder is given too, behind its start: all but the last of each window."""
    last = {window(r): r["position"] for r in sorted(rows, key=lambda r: r["position"])}
    return [r for r in rows if r["position"] != last[window(r)]]


def window(one: dict[str, Any]) -> tuple[int, int]:
    return one["row"], one["part"]


def restored(reads: Loaded, kind: str, words: list[list[str]], rows: Rows, beams: int, passes: int, generate: int) -> None:
    """Every labelled token's word, form, domain and text."""
    for one in rows:
        assert (one["word"] is None) == (one["number"] is None)
        assert one["domain"] == f"domain{one['row']}"
        if one["word"] is not None:
            assert one["number"] == f"{one['row']}/{one['word']}"
            assert one["form"] == words[one["row"]][one["word"]]
            assert letters(reads, [one["id"]])
    encoder, decoder = ([r for r in rows if r["stack"] == stack] for stack in ("encoder", "decoder"))
    if kind == "decoder":
        assert spelled(reads, decoder) == whole(reads, words, beams, passes)
        return
    cut = {window(r) for r in encoder if "extra_id" in reads.tokenizer.convert_ids_to_tokens(r["id"])}
    if generate:
        assert not spelled(reads, decoder)
    else:
        copied = but_last([r for r in encoder if window(r) not in cut])
        assert spelled(reads, [r for r in decoder if window(r) not in cut]) == spelled(reads, copied)
        encoder = encoder + [r for r in decoder if window(r) in cut]
    found = {key[:2]: Counter() for key in whole(reads, words)}
    for key, text in spelled(reads, encoder).items():
        found[key[:2]].update(text)
    expected = {key[:2]: Counter(text) for key, text in whole(reads, words).items()}
    assert all(not found[key] - expected[key] for key in found) if generate else found == expected


def check(path: Path, kind: str, make: str, words: list[list[str]], beams: int = 1, **settings: Any) -> None:
    """Trace and restore."""
    begins, gap, cache, chunk = (
        settings.pop(k, d) for k, d in (("begins", False), ("gap", " "), ("cache", True), ("chunk", None))
    )
    reads, generate = loaded(kind, make, begins), settings.get("generate", 0)
    reads.model.generation_config.num_beams, reads.model.generation_config.use_cache = beams, cache
    reads.model.generation_config.prefill_chunk_size = chunk
    rows = traced(reads, dataset(words, gap), path, **settings)
    if chunk is None:
        assert not any(one["generated"] and one["word"] is not None for one in rows)
    restored(reads, kind, words, rows, beams, 1, generate)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.sampled(5)
def test_whole_texts_and_windows(tmp_path: Path, kind: str, make: str) -> None:
    """In one piece and in windows whose borders cut words."""
    check(tmp_path / "a.duckdb", kind, make, TEXTS)
    check(tmp_path / "a.duckdb", kind, make, TEXTS, max_length=5, batch_size=3, begins=True, gap="  ")


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.sampled(2)
def test_generation(tmp_path: Path, kind: str, make: str) -> None:
    """Prompts padded on the left: their labels stay, what is generated has none, with and without a cache, in beams."""
    check(tmp_path / "a.duckdb", kind, make, TEXTS, generate=3)
    check(tmp_path / "a.duckdb", kind, make, TEXTS[:2], generate=3, cache=False)
    check(tmp_path / "a.duckdb", kind, make, TEXTS[:2], generate=3, beams=3, begins=True)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_chunked_prefill(tmp_path: Path, chunk: int) -> None:
    """Whatever is left over for the last chunk, of which one token looks like a decode step."""
    check(tmp_path / "a.duckdb", "decoder", "bytes", TEXTS, generate=2, chunk=chunk)


words = st.lists(st.text(LETTERS, min_size=1, max_size=5), min_size=1, max_size=7)


@pytest.mark.slow
@settings(max_examples=how_many(20, 4), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_texts(tmp_path: Path, data: st.DataObject) -> None:
    """Random words, kinds, tokenizers, windows, batches, beams and chunks."""
    draw = data.draw
    kind, make = draw(st.sampled_from(list(MODELS))), draw(st.sampled_from(MAKES))
    chosen: dict[str, Any] = {"generate": draw(st.sampled_from([0, 0, 1, 3])), "seed": draw(st.integers(0, 9))}
    chosen |= {"batch_size": draw(st.integers(1, 4)), "max_length": draw(st.none() | st.integers(1, 9))}
    chosen |= {"begins": draw(st.booleans()), "gap": draw(st.sampled_from([" ", "  ", "\n"]))}
    if chosen["generate"]:
        chosen |= {"beams": draw(st.integers(1, 3)), "cache": draw(st.booleans())}
        if kind == "decoder" and chosen["cache"]:
            chosen["chunk"] = draw(st.none() | st.integers(1, 6))
    check(tmp_path / "a.duckdb", kind, make, draw(st.lists(words, min_size=1, max_size=4)), **chosen)


def labelled(name: str, count: int) -> SequenceInfo:
    """As many words as tokens, each labelled by the text and its number."""
    return SequenceInfo(document=name, words=range(count), word_labels=[{"form": f"{name}{n}"} for n in range(count)])


FORMS = """select s.document, t.position, l.label from tokens t join sequences s using (sequence)
    left join token_labels l on l.token = t.token and l.kind = 'form' order by 1, 2, t.token"""


def forms(path: Path) -> list[tuple[Any, ...]]:
    with moescope.open(path) as store:
        return store.rows(FORMS)


def test_rows_selected_in_a_cache_keep_their_labels(tmp_path: Path) -> None:
    """A prefill in two chunks between which rows change places, or go."""
    model, x = mixtral(), ids(2, 6)
    for rows in ([1, 0], [1]):
        tracer = moescope.Tracer(model, path := tmp_path / f"{len(rows)}.duckdb")
        with torch.no_grad(), tracer, tracer.batch([labelled("a", 6), labelled("b", 6)]):
            cache = model(x[:, :3], use_cache=True).past_key_values
            cache.batch_select_indices(torch.tensor(rows))
            model(x[rows, 3:], past_key_values=cache)
        kept = {"a": 6 if 0 in rows else 3, "b": 6}
        assert forms(path) == [(name, n, f"{name}{n}") for name, count in kept.items() for n in range(count)]


def test_a_turn_on_a_kept_cache_has_labels_of_its_own(tmp_path: Path) -> None:
    """What is said of the next forwards goes with their tokens, not with those that the cache holds already."""
    model, x = mixtral(), ids(1, 7)
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb") as tracer:
        with tracer.batch([labelled("a", 4)]):
            cache = model(x[:, :4], use_cache=True).past_key_values
        with tracer.batch([labelled("b", 3)]):
            model(x[:, 4:], past_key_values=cache)
    assert forms(tmp_path / "a.duckdb") == [("a", n, f"a{n}" if n < 4 else f"b{n - 4}") for n in range(7)]


def test_what_follows_a_crop_has_no_labels(tmp_path: Path) -> None:
    """Another text in the place of what was cropped off is not the text that the labels are of."""
    model, x = mixtral(), ids(1, 9)
    with torch.no_grad(), moescope.Tracer(model, tmp_path / "a.duckdb") as tracer, tracer.batch([labelled("a", 6)]):
        cache = model(x[:, :5], use_cache=True).past_key_values
        cache.crop(-3)
        model(x[:, 5:], past_key_values=cache)
    found = [(0, "a0"), (1, "a1"), (2, "a2"), (2, None), (3, "a3"), (3, None), (4, "a4"), (4, None), (5, None)]
    assert sorted((n, f or "~") for _, n, f in forms(tmp_path / "a.duckdb")) == sorted((n, f or "~") for n, f in found)


class Deaf:
    """A tokenizer that says neither where its pieces are nor what they are."""

    is_fast, pad_token_id, all_special_ids = False, 0, [0]

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(letter) % 90 for letter in text]}

    def get_vocab(self) -> dict[str, int]:
        return {}

    def decode(self, some: list[int], **_: Any) -> str:
        return "".join(f"<{i}>" for i in some)

    def convert_ids_to_tokens(self, some: list[int]) -> list[str]:
        return [f"<{i}>" for i in some]


def test_labels_that_cannot_be_placed_are_named(tmp_path: Path) -> None:
    """A slow tokenizer whose pieces do not spell the text: no labels, and the run says so."""
    rows = traced(Loaded("deaf", mixtral(), Deaf()), dataset(TEXTS), path := tmp_path / "a.duckdb")
    assert {one["word"] for one in rows} == {None}
    with moescope.open(path) as store:
        ((warnings,),) = store.rows("select warnings from runs")
    assert [w for w in json.loads(warnings or "[]") if "labels" in w] == [
        "the labels of words and spans of 3 texts are left out: the tokenizer does not say where its tokens are in the text, "
        "and what they spell is not the text"
    ]
