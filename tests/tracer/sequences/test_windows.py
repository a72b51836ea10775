"""Windows of texts: which ids, words, labels and pieces of text each one holds, on both sides of an encoder–decoder."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from texts import dataset, loaded

from moescope.errors import InputError
from moescope.inputs import Dataset, Example
from moescope.models.loading import Loaded
from moescope.tracer.data.windows import Window, context, decoder_info, windows

TEXTS = [["ab", "cd", "abe"], ["dea"], ["cde", "b", "ab", "bcd", "e"]]


def made(
    kind: str, limit: int | None, make: str = "metaspace", texts: list[list[str]] = TEXTS, seed: int = 0, **more: Any
) -> list[Window]:
    return list(windows(loaded(kind, make, **more), dataset(texts), limit, seed))


def whole(kind: str, make: str, words: list[str], begins: bool = False) -> list[tuple[int, str, int | None]]:
    """(id, piece, word) of a text, token by token: words begin with the tokenizer's mark."""
    reads = loaded(kind, make, begins)
    ids = reads.tokenizer(" ".join(words))["input_ids"]
    pieces, word, found = reads.tokenizer.convert_ids_to_tokens(ids), -1, []
    for i, piece in zip(ids, pieces):
        word += piece.startswith("▁")
        found.append((i, piece, None if i in reads.tokenizer.all_special_ids or piece == "▁" else word))
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize("begins", [False, True])
def test_every_token_is_in_one_window_with_its_word(limit: int, begins: bool) -> None:
    found = made("decoder", limit, begins=begins)
    expected = []
    for row, words in enumerate(TEXTS):
        tokens = whole("decoder", "metaspace", words, begins)
        for part in range(-(-len(tokens) // limit)):
            here = tokens[part * limit : (part + 1) * limit]
            text = "".join(p for _, p, _ in here if p not in ("<s>", "</s>")).replace("▁", " ")
            expected.append((row, part, [i for i, _, _ in here], [w for _, _, w in here], text.strip()))
    rows = [(w.info.row, w.info.part, w.ids, list(w.info.words), (w.info.text or "").strip()) for w in found]
    assert rows == expected
    for window in found:
        about = window.info
        assert (about.source, about.document, dict(about.labels)) == (
            "made",
            f"doc{about.row}",
            {"domain": f"domain{about.row}"},
        )
        labels = [{"form": w, "number": f"{about.row}/{n}"} for n, w in enumerate(TEXTS[about.row])]
        assert [dict(some) for some in about.word_labels] == labels
        assert (window.decoder_ids, decoder_info(window, False) is about, decoder_info(window, True) is about) == (
            None,
            True,
            True,
        )


@pytest.mark.parametrize("limit", [3, 100])
def test_a_decoder_is_given_what_the_encoder_read_one_place_later(limit: int) -> None:
    reads = loaded("shifted", "metaspace")
    start = reads.model.config.decoder_start_token_id
    for window in made("shifted", limit):
        assert window.ids is not None
        assert window.decoder_ids == [start, *window.ids[:-1]]
        said = decoder_info(window, False)
        assert list(said.words) == [None, *window.info.words[:-1]]
        assert (said.row, said.part, said.document, said.word_labels) == (
            window.info.row, window.info.part, window.info.document, window.info.word_labels,
        )  # fmt: skip
        assert list(decoder_info(window, True).words) == []  # it will write a text of its own
        assert len(window) == 2 * len(window.ids)


@pytest.mark.parametrize("limit", [4, 6, 100])
@pytest.mark.parametrize("seed", range(4))
def test_words_follow_their_tokens_into_targets(limit: int, seed: int) -> None:
    """Every token of the text stands on one side, with its word; the last of the target is not fed."""
    reads = loaded("sentinels", "metaspace")
    config, first = reads.model.config, {}
    for window in made("sentinels", limit, seed=seed):
        assert window.ids is not None
        assert window.decoder_ids is not None
        tokens = [(i, w) for i, _, w in whole("sentinels", "metaspace", TEXTS[window.info.row])]
        here = tokens[window.info.part * limit : (window.info.part + 1) * limit]
        both = list(zip(window.ids, window.info.words)), list(zip(window.decoder_ids, decoder_info(window, False).words))
        if len(here) < 3:
            assert both == (here, [(config.decoder_start_token_id, None), *here[:-1]])
            continue
        sentinels = {reads.tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(8)}
        marks = {*sentinels, config.decoder_start_token_id, config.eos_token_id}
        assert all(word is None for side in both for i, word in side if i in marks)
        said = Counter((i, w) for side in both for i, w in side if i not in marks)
        wanted = Counter((i, w) for i, w in here if i not in marks)
        assert said == wanted  # all of it: the target ends with the end, which is what is not fed
        assert both[0][-1] == (config.eos_token_id, None)
        assert both[1][0] == (config.decoder_start_token_id, None)
        assert [i for i, _ in both[0] if i in sentinels] == [i for i, _ in both[1] if i in sentinels]
        first[window.info.row, window.info.part] = window.ids
    again = {(w.info.row, w.info.part): w.ids for w in made("sentinels", limit, seed=seed)}
    assert first.items() <= again.items()


def test_texts_alike_are_cut_differently() -> None:
    cuts = [tuple(w.ids or ()) for w in made("sentinels", 100, texts=[["ab", "cd", "abe", "b", "e"] * 8] * 6)]
    assert len(set(cuts)) > 1


@pytest.mark.parametrize(("asked", "length"), [(None, 256), (300, 256), (256, 256), (255, 255)])
def test_no_window_is_longer_than_the_model_takes(asked: int | None, length: int) -> None:
    assert context(loaded("decoder", "metaspace")) == 256
    ids = np.arange(600) % 90 + 3
    data = Dataset("ids", "0" * 64, "text", [Example("ids", 0, "d", input_ids=ids)])
    found = list(windows(Loaded("m", loaded("decoder", "metaspace").model), data, asked, 0))
    assert [len(w) for w in found] == [length] * (600 // length) + [600 % length]
    assert [i for w in found for i in w.ids or ()] == ids.tolist()


@pytest.mark.parametrize(("wrong", "fits"), [(399, True), (400, False), (0, True), (-1, False)])
def test_ids_without_an_embedding_are_refused(wrong: int, fits: bool) -> None:
    data = Dataset("ids", "0" * 64, "text", [Example("ids", 7, "d", input_ids=np.array([3, wrong, 5]))])
    asked = windows(Loaded("m", loaded("decoder", "metaspace").model), data, None, 0)
    if fits:
        assert [w.ids for w in asked] == [[3, wrong, 5]]
        return
    with pytest.raises(InputError, match=f"ids, row 7 holds id {wrong}, but m embeds ids 0 to 399"):
        list(asked)


@pytest.mark.parametrize(
    ("sizes", "most"),
    [({}, 1 << 20), ({"max_position_embeddings": 0, "n_positions": 7}, 7), ({"max_position_embeddings": -1}, 1 << 20),
     ({"max_seq_len": 5}, 5),
     ({"max_position_embeddings": None, "n_positions": 9, "max_seq_len": 5}, 9),
     ({"text_config": SimpleNamespace(n_positions=3), "n_positions": 8}, 3)],
)  # fmt: skip
def test_how_much_a_model_takes(sizes: dict[str, Any], most: int) -> None:
    """The first size that its configuration says, that of its text where it has one; no model of one's own must say it."""
    model = torch.nn.Identity()
    assert context(Loaded("m", model)) == 1 << 20
    data = Dataset("ids", "0" * 64, "text", [Example("ids", 0, "d", input_ids=np.array([3, 4]))])
    assert [(w.ids, w.decoder_ids, list(w.info.words)) for w in windows(Loaded("m", model), data, None, 0)] == [
        ([3, 4], None, [])
    ]
    model.config = SimpleNamespace(**sizes)  # type: ignore[assignment]
    assert context(Loaded("m", model)) == most
