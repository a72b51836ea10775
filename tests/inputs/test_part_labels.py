"""Labels of a user's own on parts of a text: spans, words, tokens; joined by characters, and named where no token has them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import mixtral

import moescope
from moescope.errors import InputError
from moescope.inputs import Example, Span, Word, label_tokens, read
from moescope.models.loading import load

TEXT = "the cat sat on the mat"
SPANS = [
    {"start": 0, "end": 7, "kind": "entity", "value": "animal"},
    {"start": 15, "end": 22, "kind": "entity", "value": "thing"},
    {"start": 0, "end": 22, "kind": "turn", "value": 1},
]
WORDS = [{"start": 4, "end": 7, "upos": "NOUN", "rare": False}, {"start": 8, "end": 11, "upos": "VERB", "rare": None}]


def test_rows_hand_over_spans_words_and_labels() -> None:
    row = {"text": TEXT, "genre": "rhyme", "spans": SPANS, "words": WORDS}
    assert read([row]).examples == (
        Example(
            "inputs", 0, "inputs:0", TEXT, labels={"genre": "rhyme"},
            words=(Word(4, 7, {"upos": "NOUN", "rare": "false"}), Word(8, 11, {"upos": "VERB"})),
            spans=(Span(0, 7, "entity", "animal"), Span(15, 22, "entity", "thing"), Span(0, 22, "turn", "1")),
        ),
    )  # fmt: skip
    lists = {name: [span[name] for span in SPANS] for name in SPANS[0]}  # as some data sets hold them
    for cell in (json.dumps(SPANS), lists, tuple(SPANS)):
        assert read([{"text": TEXT, "spans": cell}]).examples[0].spans == read([row]).examples[0].spans


def test_a_column_of_that_name_may_be_a_label() -> None:
    (found,) = read([{"text": TEXT, "spans": 3, "words": ["the", "cat"], "token_labels": "none"}]).examples
    assert (dict(found.labels), found.spans, found.words) == ({"spans": "3", "token_labels": "none"}, (), ())


def test_ids_have_labels_one_by_one() -> None:
    row = {
        "input_ids": [5, 6, 7, 0],
        "attention_mask": [1, 1, 1, 0],
        "token_labels": {"pos": ["a", None, 3, "x"], "none": None},
    }
    (found,) = read([row]).examples
    assert found.token_labels == {"pos": ["a", None, "3"]}


def one(**change: Any) -> dict[str, Any]:
    return {"text": TEXT, "spans": [{"start": 0, "end": 3, "kind": "k", "value": "v", **change}]}


FORM = "a list of {start, end, kind, value}"
OUTSIDE = "but its text has 22: count them from 0, the end exclusive"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "past the end": (one(end=23), f"row 0, span 0 is of characters 0 to 23, {OUTSIDE}"),
    "below 0": (one(start=-1), f"row 0, span 0 is of characters -1 to 3, {OUTSIDE}"),
    "backwards": (one(start=5), f"row 0, span 0 is of characters 5 to 3, {OUTSIDE}"),
    "no number": (one(start="0"), "row 0, span 0: start is '0': give the number of a character, from 0"),
    "half a character": (one(end=1.5), "row 0, span 0: end is 1.5: give the number of a character, from 0"),
    "truth": (one(end=True), "row 0, span 0: end is True: give the number of a character, from 0"),
    "no kind": (one(kind=None), f"row 0, span 0 has no 'kind': give {FORM}"),
    "no value": (one(value=None), f"row 0, span 0 has no 'value': give {FORM}"),
    "more": (one(label="x"), f"row 0, span 0 has 'label', which is not read: give {FORM}, or several spans"),
    "pairs": (
        {"text": TEXT, "spans": [[0, 3]]}, f"row 0: `spans` holds list: give {FORM}, or call the column otherwise"
    ),
    "an object": (
        {"text": TEXT, "spans": {"a": 1}},
        f"row 0: `spans` holds an object of a: give {FORM}, or call the column otherwise",
    ),
    "no JSON": ({"text": TEXT, "spans": "[{"}, f"row 0: `spans` is a text that is not JSON: give {FORM}"),
    "twice": (
        {"text": TEXT, "spans": one(kind="upos")["spans"], "words": WORDS},
        "row 0: 'upos' is a kind of `spans` and of `words`: call one of them otherwise",
    ),
    "word outside": (
        {"text": TEXT, "words": [{"start": 30, "end": 31}]}, f"row 0, word 0 is of characters 30 to 31, {OUTSIDE}"
    ),
    "tokens of a text": (
        {"text": TEXT, "token_labels": {"a": []}},
        "row 0: `token_labels` go with `input_ids`; of a text, label characters with `spans`",
    ),
    "spans of ids": (
        {"input_ids": [1], "spans": SPANS},
        "row 0: `spans` count characters of a text, but this row is ids; give `token_labels`",
    ),
    "too few": (
        {"input_ids": [1, 2], "token_labels": {"a": ["x"]}},
        "row 0: `token_labels` has 1 of 'a' but there are 2 ids: make them alike",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_sentence(case: str) -> None:
    row, said = BAD[case]
    with pytest.raises(InputError) as caught:
        read([row])
    assert str(caught.value) == f"inputs, {said}"


places = st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))
labelled = st.tuples(places, st.sampled_from("ab"), st.integers(0, 5)).map(lambda s: Span(*s[0], s[1], str(s[2])))


@given(st.lists(labelled, max_size=10), st.lists(places, max_size=14))
def test_tokens_have_the_span_that_they_share_most_characters_with(spans: list[Span], offsets: list[tuple[int, int]]) -> None:
    """Counted character by character, kind by kind."""
    found, bare = label_tokens(spans, offsets)
    used: list[int] = []
    for kind in {span.kind for span in spans}:
        some = [(n, set(range(span.start, span.end))) for n, span in enumerate(spans) if span.kind == kind]
        for place, (start, end) in enumerate(offsets):
            shared = Counter({n: len(own & set(range(start, end))) for n, own in some})
            most = max(shared.values())
            winner = min((n for n, count in shared.items() if count == most), default=None) if most else None
            assert found[kind][place] == (None if winner is None else spans[winner].value)
            used += [] if winner is None else [winner]
    assert set(found) == {span.kind for span in spans}
    assert [id(span) for span in bare] == [id(span) for n, span in enumerate(spans) if n not in used]


def test_spans_are_labels_of_the_tokens_they_cover(tmp_path: Path) -> None:
    """By a real tokenizer, over windows; what labels no token is named, in the run."""
    model = load("mixtral")
    spans = [
        *SPANS,
        {"start": 7, "end": 8, "kind": "gap", "value": "space"},
        {"start": 9, "end": 9, "kind": "gap", "value": "no"},
    ]
    rows = [{"text": TEXT, "spans": spans, "words": WORDS}, {"text": "the end"}]
    moescope.trace(model, rows, tmp_path / "a.duckdb", max_length=4)
    store = moescope.open(tmp_path / "a.duckdb")
    offsets = list(model.tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"])
    said: list[tuple[str, str, int]] = []
    for kind, some in {"entity": SPANS[:2], "turn": SPANS[2:], "gap": spans[3:], "upos": WORDS, "rare": WORDS[:1]}.items():
        for place, (start, end) in enumerate(offsets):
            shared = [(len(set(range(s["start"], s["end"])) & set(range(start, end))), -n) for n, s in enumerate(some)]
            most, which = max(shared)
            value = some[-which].get("value", some[-which].get(kind))
            said += [(kind, str(value).lower() if value is False else str(value), place)] if most else []
    assert store.rows(
        "select kind, label, s.part * 4 + position from token_labels join tokens using (token) join sequences s using "
        "(sequence) order by all"
    ) == sorted(said)
    bare = [span for span in spans[3:] if not any(kind == "gap" and label == span["value"] for kind, label, _ in said)]
    warnings = json.loads(store.rows("select warnings from runs")[0][0])
    named = "; ".join(f"inputs, row 0: gap {s['value']!r} of characters {s['start']} to {s['end']}" for s in bare)
    assert bare
    assert f"{len(bare)} spans label no token, which all lie outside them or more in others: {named}" in warnings


def test_labels_of_ids_go_with_them(tmp_path: Path) -> None:
    rows = [{"input_ids": [5, 6, 7], "token_labels": {"pos": ["a", None, "b"]}}, {"input_ids": [8, 9]}]
    moescope.trace(mixtral(), rows, tmp_path / "a.duckdb", generate=2)
    store = moescope.open(tmp_path / "a.duckdb")
    assert store.rows("select vocab_id, kind, label, word from token_labels join tokens using (token) order by 1") == [
        (5, "pos", "a", None), (7, "pos", "b", None),
    ]  # fmt: skip
