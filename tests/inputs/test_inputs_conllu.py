"""CoNLL-U and CONLLULEX: text, words and their characters, documents, malformed lines."""

from pathlib import Path

import pytest

from moescope.errors import InputError
from moescope.inputs import Example, Word, read

SHARED = Path(__file__).parents[3] / "shared" / "data"


def row(number: object, form: str, upos: str = "X", misc: str = "_", lemma: str = "_") -> str:
    return f"{number}\t{form}\t{lemma}\t{upos}\t_\t_\t0\tdep\t_\t{misc}"


def corpus(tmp_path: Path, *lines: str, name: str = "a.conllu") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def word(start: int, end: int, form: str, upos: str = "X") -> Word:
    return Word(start, end, {"form": form, "upos": upos, "deprel": "dep"})


DOCUMENTS = (
    "# newdoc id = reviews-1",
    "# sent_id = 1",
    "# text = I don't.",
    row(1, "I"),
    row("2-3", "don't", "_", "SpaceAfter=No"),
    row(2, "do", "AUX"),
    row(3, "n't", "PART"),
    row("3.1", "like", "VERB"),
    row(4, ".", "PUNCT", "SpacesAfter=\\s\\u00A0"),
    "",
    row(1, "a", misc="SpaceAfter=No"),
    row(2, "b"),
    "",
    "",
    "# newpar",
    row(1, "c"),
    "",
    "# newdoc",
    "# domain = law",
    "# meta::year = 1999",
    row(1, "d"),
)


def test_documents(tmp_path: Path) -> None:
    assert read(corpus(tmp_path, *DOCUMENTS)).examples == (
        Example(
            "a.conllu",
            0,
            "reviews-1",
            "I don't. \xa0ab\n\nc",
            labels={"genre": "reviews"},
            words=(
                word(0, 1, "I"),
                word(2, 4, "do", "AUX"),
                word(4, 7, "n't", "PART"),
                word(7, 8, ".", "PUNCT"),
                word(10, 11, "a"),
                word(11, 12, "b"),
                word(14, 15, "c"),
            ),
        ),
        Example("a.conllu", 1, "a.conllu:3", "d", labels={"domain": "law", "year": "1999"}, words=(word(0, 1, "d"),)),
    )


def test_sentences(tmp_path: Path) -> None:
    examples = read(corpus(tmp_path, *DOCUMENTS), sentences=True).examples
    assert [(e.row, e.document, e.text) for e in examples] == [
        (0, "reviews-1", "I don't."),
        (1, "reviews-1", "ab"),
        (2, "reviews-1", "c"),
        (3, "a.conllu:3", "d"),
    ]
    assert examples[1].words == (word(0, 1, "a"), word(1, 2, "b"))


def test_without_documents_each_sentence_is_one(tmp_path: Path) -> None:
    examples = read(corpus(tmp_path, row(1, "a"), "", row(1, "b"))).examples
    assert [(e.document, e.text) for e in examples] == [("a.conllu:0", "a"), ("a.conllu:1", "b")]


def test_passages_of_one_source_share_their_document(tmp_path: Path) -> None:
    passages = [(f"# newdoc id = book#{n}", "# source_document = book", row(1, "a"), "") for n in (1, 2)]
    examples = read(corpus(tmp_path, *passages[0], *passages[1])).examples
    assert [(e.row, e.document) for e in examples] == [(0, "book"), (1, "book")]


def test_multiword_token_whose_words_do_not_make_it_up_is_one_word(tmp_path: Path) -> None:
    path = corpus(tmp_path, row("1-2", "du"), row(1, "de", "ADP"), row(2, "le", "DET"), row(3, "_", "SYM", lemma="_"))
    (example,) = read(path).examples
    assert example.text == "du _"
    assert example.words == (
        Word(0, 2, {"form": "du", "upos": "ADP+DET", "deprel": "dep+dep"}),
        Word(3, 4, {"form": "_", "lemma": "_", "upos": "SYM", "deprel": "dep"}),
    )


def test_conllulex(tmp_path: Path) -> None:
    lex = ("1:1", "V.VPC.semi", "rust out", "v.stative", "_", "_", "_", "_", "B-V.VPC.semi-v.stative")
    path = corpus(tmp_path, row(1, "Rusted", "VERB") + "\t" + "\t".join(lex), name="a.conllulex")
    assert read(path).examples[0].words == (
        Word(
            0,
            6,
            {
                "form": "Rusted",
                "upos": "VERB",
                "deprel": "dep",
                "smwe": "1:1",
                "lexcat": "V.VPC.semi",
                "lexlemma": "rust out",
                "supersense": "v.stative",
                "lextag": "B-V.VPC.semi-v.stative",
            },
        ),
    )


MALFORMED = {
    "it has 2 tab-separated columns, not 10 (CoNLL-U) or 19 (CONLLULEX)": (row(1, "a"), "2\tb"),
    "'x' is no word number": ("# text = a", row("x", "a")),
    "its form is empty": ("# text = a", row(1, "")),
    "the word number 3 does not follow 1": (row(1, "a"), row(3, "b")),
    "the word number 2-2 does not follow 1": (row(1, "a"), row("2-2", "b")),
    "the sentence ends at word 1, inside a multiword token": (row("1-2", "ab"), row(1, "a")),
    "'b' is not what `# text` has at character 0": ("# text = a", row(1, "b")),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_lines(tmp_path: Path, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read(corpus(tmp_path, *MALFORMED[what]))
    assert str(caught.value) == (f"a.conllu, line 2 is not well-formed: {what}; repair it or leave the sentence out.")


def test_text_with_more_than_the_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1 is not well-formed: no word covers 'b'"):
        read(corpus(tmp_path, "# text = a b", row(1, "a")))


def test_only_comments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.conllu holds nothing to trace: it is empty"):
        read(corpus(tmp_path, "# newdoc"))


GOLD = [("ud-ewt", 50241, 634, 4078), ("streusle", 10777, 376, 1089)]


@pytest.mark.parametrize(("folder", "n_words", "n_documents", "n_sentences"), GOLD)
@pytest.mark.parametrize("sentences", [False, True])
def test_gold_corpora_align_exactly(folder: str, n_words: int, n_documents: int, n_sentences: int, sentences: bool) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"the corpus shared/data/{folder} is not beside this checkout")
    data = read(SHARED / folder, sentences=sentences)
    assert len(data) == (n_sentences if sentences else n_documents)
    assert len({e.document for e in data.examples}) == n_documents
    spans = [(e.text[w.start : w.end], w.labels["form"]) for e in data.examples for w in e.words if e.text]
    assert len(spans) == n_words
    assert all(written == form for written, form in spans)


def test_sentences_are_the_files_own_text() -> None:
    path = SHARED / "ud-ewt" / "en_ewt-ud-dev.conllu"
    if not path.is_file():
        pytest.skip("the corpus shared/data/ud-ewt is not beside this checkout")
    lines = [line.removeprefix("# text = ") for line in path.read_text().splitlines() if line.startswith("# text = ")]
    assert [e.text for e in read(path, sentences=True).examples] == lines
    assert {e.labels["genre"] for e in read(path).examples} == {"answers", "email", "newsgroup", "reviews", "weblog"}


def test_forms_and_spaces_alone_rebuild_the_text(tmp_path: Path) -> None:
    source = SHARED / "ud-ewt" / "en_ewt-ud-test.conllu"
    if not source.is_file():
        pytest.skip("the corpus shared/data/ud-ewt is not beside this checkout")
    bare = tmp_path / "bare.conllu"
    bare.write_text("".join(line for line in source.open() if not line.startswith("# text = ")))
    kept, rebuilt = (read(path, sentences=True).examples for path in (source, bare))
    assert [e.text for e in rebuilt] == [e.text for e in kept]
    assert [e.words for e in rebuilt] == [e.words for e in kept]
