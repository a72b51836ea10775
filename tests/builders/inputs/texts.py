"""Labelled random texts, tokenizers of every make, tiny models that read them, and what a store says of each word."""

from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

import moescope
from moescope.inputs import Dataset, Example, Word
from moescope.models.loading import Loaded
from moescope.models.tiny.found import config_class, model_class
from moescope.models.tiny.shrink import tiny_config
from moescope.models.tiny.special import SPECIAL, Special
from moescope.models.tiny.weights import refill

LETTERS = "abcdeéß日𝄞"
VOCABULARY = 400
SENTINELS = 8
MAKES = ("bytes", "metaspace", "wordpiece", "slow")
MODELS = {"decoder": "mixtral", "sentinels": "switch_transformers", "shifted": "nllb-moe"}


@cache
def tokenizer(make: str, sentinels: bool = False, begins: bool = False) -> Any:
    """Subwords of LETTERS: some pairs are one piece. Adds </s>, and <s> where it `begins`."""
    if make == "slow":
        return ByT5Tokenizer(extra_ids=SENTINELS if sentinels else 0)
    special = ["<pad>", "<s>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(SENTINELS if sentinels else 0)]
    numbers = {token: n for n, token in enumerate(special)}
    built = Tokenizer({"bytes": _bytes, "metaspace": _pairs, "wordpiece": _pieces}[make](numbers))
    if make == "wordpiece":
        built.pre_tokenizer, built.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    elif make == "bytes":
        built.pre_tokenizer, built.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        built.pre_tokenizer, built.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    ends = [("</s>", numbers["</s>"])]
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if begins else "$A </s>", special_tokens=[("<s>", numbers["<s>"]), *ends]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=built, extra_special_tokens=special[4:], **names)


def _numbered(numbers: dict[str, int], pieces: list[str]) -> dict[str, int]:
    place = count(len(numbers))
    return numbers | {piece: next(place) for piece in dict.fromkeys(pieces)}


def _bytes(numbers: dict[str, int]) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return models.BPE(_numbered(numbers, [*alphabet, "ab", "Ġc", "cd"]), [("a", "b"), ("Ġ", "c"), ("c", "d")])


def _pairs(numbers: dict[str, int]) -> Any:
    pieces = ["▁", *LETTERS, "▁a", "ab", "cd"]
    return models.BPE(_numbered(numbers, pieces), [("▁", "a"), ("a", "b"), ("c", "d")], unk_token="<unk>")


def _pieces(numbers: dict[str, int]) -> Any:
    starts = [*LETTERS, "ab", "cde"]
    return models.WordPiece(_numbered(numbers, [*starts, *(f"##{s}" for s in starts)]), unk_token="<unk>")


@cache
def model(kind: str) -> Any:
    """A tiny model of a kind, with room for any of the tokenizers."""
    family = MODELS[kind]
    fields = SPECIAL.get(family, Special()).fields | {"vocab_size": VOCABULARY, "max_position_embeddings": 256}
    logging.set_verbosity_error()
    torch.manual_seed(0)
    built = model_class(family)._from_config(tiny_config(config_class(family), **fields)).eval()
    refill(built, 0)
    return built


def loaded(kind: str, make: str, begins: bool = False) -> Loaded:
    """The model with a tokenizer, as `moescope.trace` takes it; T5's kind with sentinels."""
    made, words = model(kind), tokenizer(make, kind == "sentinels", begins)
    for holder in (made.config, made.generation_config):
        holder.pad_token_id, holder.eos_token_id = words.pad_token_id, words.eos_token_id
        holder.decoder_start_token_id = words.pad_token_id if kind == "sentinels" else words.eos_token_id
    made.generation_config.num_beams, made.generation_config.prefill_chunk_size = 1, None
    made.generation_config.use_cache = True
    known = max(words.get_vocab().values()) + 1  # the model has room for more ids than the tokenizer has
    made.generation_config.suppress_tokens = list(range(known, VOCABULARY)) or None
    return Loaded(kind, made, words)


def dataset(texts: list[list[str]], gap: str = " ") -> Dataset:
    """Documents of words; every word carries its form and its number, every document its name."""
    examples = []
    for row, words in enumerate(texts):
        ends, placed = 0, []
        for number, word in enumerate(words):
            placed.append(Word(ends, ends + len(word), {"form": word, "number": f"{row}/{number}"}))
            ends += len(word) + len(gap)
        labels = {"domain": f"domain{row}"}
        examples.append(Example("made", row, f"doc{row}", gap.join(words), labels=labels, words=tuple(placed)))
    return Dataset("made", "0" * 64, "text", examples)


def traced(reads: Loaded, data: Dataset, path: Path, **settings: Any) -> list[dict[str, Any]]:
    """Rows of every token in order: row, part, stack, beam, domain, position, id, text, generated, word, form, number."""
    moescope.trace(reads, data, path, overwrite=True, **settings)
    query = """select s.source_row as row, s.part, s.stack, s.beam, s.domain, s.sequence, t.position, t.vocab_id as id, v.text,
        t.generated, t.word, f.label as form, n.label as number from tokens t join sequences s using (sequence)
        left join vocab v using (vocab_id)
        left join token_labels f on f.token = t.token and f.kind = 'form'
        left join token_labels n on n.token = t.token and n.kind = 'number' order by t.sequence, t.token"""
    with moescope.open(path) as store:
        return store.sql(query).df().astype(object).where(lambda f: f.notna(), None).to_dict("records")
