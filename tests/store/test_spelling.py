"""Tokens as one reads them, whichever way a vocabulary writes them; stored values stay."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner
from pages import part
from recounted import Truth, written

import moescope
from moescope import show
from moescope.cli import main
from moescope.store import spelling

TRUTH = Truth(1)
# Seven tokens, as each vocabulary writes them, and as one reads them.
LETTERS = ["Ġthe", "âĢĶ", "âĢ", "Ġcafé".replace("é", "Ã©"), "é", "ç½ĳ", "Ċ"]
READ = [" the", "—", "⟨E2 80⟩", " café", "⟨E9⟩", "网", "\n"]
TEXTS = [" the", "—", "âĢ", " café", "é", "网", "ół"]  # as `moescope trace` keeps them: whole ones as text
KEPT = [" the", "—", "⟨E2 80⟩", " café", "é", "网", "ół"]
PIECES = ["▁the", "—", "<0xE2>", "▁café", "é", "网", "ł"]
PLAIN = ["▁the", "—", "⟨E2⟩", "▁café", "é", "网", "ł"]
FORMS = {"bytes as letters": (LETTERS, READ), "text where whole": (TEXTS, KEPT), "pieces": (PIECES, PLAIN)}


@pytest.fixture(scope="module", params=FORMS)
def spelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A store whose vocabulary writes its tokens one way, how it does, and how they are read."""
    path = written(tmp_path_factory.mktemp("spelled") / "a.duckdb", TRUTH)
    texts, read = FORMS[request.param]
    with duckdb.connect(str(path)) as con:
        con.executemany("update vocab set text = ? where vocab_id = ?", [(text, n) for n, text in enumerate(texts)])
    return path, texts, read


def test_a_vocabulary_says_how_it_is_read(spelled: tuple[Path, list[str], list[str]]) -> None:
    path, texts, read = spelled
    with moescope.open(path) as store:
        assert spelling.words(store, 0) == dict(enumerate(read))
        assert [text for (text,) in store.rows("select text from vocab order by vocab_id")] == texts  # what is stored stays


def test_every_place_shows_what_is_read(spelled: tuple[Path, list[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, a route, cards, contexts, characteristic tokens, changed tokens; on pages, in pictures and in a terminal."""
    path, _, read = spelled
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    tokens = [t for t in TRUTH.tokens if t.sequence == 7]
    expected = [read[t.vocab] for t in tokens]
    assert show.tokens(path, 7, 1).frame["text"].tolist() == expected
    assert [part("queries.token_routes").about(t.token, 0)["text"] for t in tokens] == expected
    layer = next(x for x in part("parts.pickers").layers(0) if x.router == 2)
    assert part("queries.token_routes").tokens(7, layer)[0]["text"].tolist() == expected
    run = {"run": 0, "tokens": len(TRUTH.tokens), "model": 0, "decisions": 100}
    visible = part("wording").visible
    cards = part("queries.expert.expert_cards").of(run, layer)
    assert {word for card in cards for word in card.words} == set(read)
    shown: list[pd.DataFrame] = []
    panels = part("parts.expert.expert_panels")
    monkeypatch.setattr(panels.url_state, "row", lambda frame, *_, **__: shown.append(frame))
    monkeypatch.setattr(panels.figures, "files", lambda *_, **__: None)
    panels._words(run, part("queries.expert.experts").top_tokens(run, layer, 0, 1.0)[0], "", [])
    assert set(shown[0]["token"]) <= {visible(text) for text in read}
    assert len(shown[0])
    route = show.route(path, tokens[0].token)
    assert visible(expected[0]) in route.title
    said = CliRunner().invoke(main, ["analyze", "specialization", str(path), "--run", "0"]).output
    assert "specialists" in said or "contexts" in said, said
    assert not any(mojibake in said for mojibake in ("âĢ", "Ã©", "ç½", "<0xE2>"))


def test_a_text_is_found_as_it_is_read(spelled: tuple[Path, list[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts, read = spelled
    monkeypatch.setenv("MOESCOPE_STORE", str(path))
    run = {"run": 0, "tokens": len(TRUTH.tokens), "model": 0, "decisions": 100}
    for word in ("the", "café", "—", "网"):
        number = next(n for n, text in enumerate(read) if word in text)
        found = part("queries.expert.finding").find(run, word)[0]
        assert set(found["what"]) == {"token"}, (word, texts)
        assert set(found["tokens"]) <= {sum(d.of.vocab == number for d in TRUTH.of(0, r)) for r in range(4)}
        assert {s["sequence"] for s in part("queries.token_routes").sequences(0, "decoder", None, word)} == {
            t.sequence for t in TRUTH.tokens if t.vocab == number and t.stack == "decoder"
        }


def test_parts_of_a_letter_are_one_where_they_are_whole() -> None:
    text, letters = spelling.AS_READ, spelling.Spelling(letters=True)
    assert text.joined([" a", "âĢ", "Ķ", " b"]) == " a— b"
    assert text.joined([" a", "âĢ", " b"]) == " a⟨E2 80⟩ b"
    assert text.joined(["<0xE2>", "<0x80>", "<0x94>"]) == "—"
    assert letters.joined(["Ġa", "âĢ", "Ķ", "Ġb"]) == " a— b"


@pytest.mark.parametrize("word", ["é", "ł", "ół", "é»", "Çı", "£1", "½", "°C", "日本", "the", "", "⟨E2⟩", "Ġ", "ñ", "āī"])
def test_text_of_any_language_is_left_as_it_is(word: str) -> None:
    assert spelling.AS_READ(word) == word
