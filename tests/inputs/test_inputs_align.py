"""align: subword tokens to words."""

from hypothesis import given
from hypothesis import strategies as st

from moescope.inputs import Word, align


def words(*spans: tuple[int, int]) -> list[Word]:
    return [Word(start, end, {}) for start, end in spans]


def test_leading_spaces_special_tokens_and_gaps() -> None:
    #  "do n't   go": tokens <s>, "do", " n't", "  ", " go", </s>
    assert align(words((0, 2), (3, 6), (9, 11)), [(0, 0), (0, 2), (2, 6), (6, 8), (8, 11), (0, 0)]) == [
        None, 0, 1, None, 2, None,
    ]  # fmt: skip


def test_a_token_over_two_words_goes_to_the_larger_part_and_ties_to_the_first() -> None:
    assert align(words((0, 2), (2, 5), (5, 8)), [(0, 5), (2, 8), (1, 3)]) == [1, 1, 0]


def test_bytes_of_one_character_and_nested_words() -> None:
    assert align(words((0, 1), (1, 2)), [(0, 1), (0, 1), (1, 2)]) == [0, 0, 1]
    assert align(words((0, 10), (2, 4)), [(2, 4), (8, 9)]) == [0, 0]


def test_nothing() -> None:
    assert align([], [(0, 3)]) == [None]
    assert align(words((0, 3)), []) == []


def slow_align(given_words: list[Word], offsets: list[tuple[int, int]]) -> list[int | None]:
    found: list[int | None] = []
    for start, end in offsets:
        overlaps = [max(0, min(end, w.end) - max(start, w.start)) for w in given_words]
        best = max(overlaps, default=0)
        found.append(overlaps.index(best) if best else None)
    return found


spans = st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(spans, max_size=12), st.lists(spans, max_size=12))
def test_same_as_comparing_every_pair(word_spans: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> None:
    assert align(words(*word_spans), offsets) == slow_align(words(*word_spans), offsets)
