"""One byte-level BPE tokenizer for all text specimens, and the corpus as rows of vocabulary ids.

`<s>` stands first in every causal row, as it does when a passage is traced; `</s>` ends a document.
The 32 `<extra_id_n>` are the sentinels of span corruption.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from specimens.corpora.sources import Document

VOCABULARY = 4096
SENTINELS = [f"<extra_id_{n}>" for n in range(32)]
PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"


def train_tokenizer(training: dict[str, list[Document]], characters: int = 600_000) -> Tokenizer:
    """Byte-level BPE over an equal share of every domain's training text; no held-out character takes part."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, UNK, *SENTINELS],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator((d[:characters] for d in map(joined, training.values())), trainer)
    return tokenizer


def joined(documents: list[Document]) -> str:
    """All documents of a domain in one string."""
    return "\n".join(d.text for d in documents)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, causal: bool) -> None:
    """Writes a folder AutoTokenizer reads: `<s>` first for the causal model, `</s>` last for the sequence model."""
    single = f"{BOS} $A" if causal else f"$A {EOS}"
    special = [(t, tokenizer.token_to_id(t)) for t in (BOS, EOS)]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=single, special_tokens=special),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        additional_special_tokens=SENTINELS,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def streams(tokenizer: Tokenizer, training: dict[str, list[Document]]) -> dict[str, np.ndarray]:
    """Per domain, all its documents as one stream of ids, each closed by `</s>`."""
    end = tokenizer.token_to_id(EOS)
    found = {}
    for domain, documents in training.items():
        encoded = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
        found[domain] = np.concatenate([np.array([*e.ids, end], dtype=np.int64) for e in encoded])
    return found


def rows(streams: dict[str, np.ndarray], length: int, total: int, seed: int) -> np.ndarray:
    """`total` rows of `length` ids, domains in equal parts and shuffled; a short domain is read more than once.

    Rows of one pass do not overlap; every further pass starts at another offset.
    """
    random = np.random.default_rng(seed)
    found = []
    for stream in streams.values():
        wanted, mine = -(-total // len(streams)), []
        while len(mine) < wanted:
            offset = int(random.integers(0, length))
            mine += list(stream[offset : offset + (len(stream) - offset) // length * length].reshape(-1, length))
        random.shuffle(mine)
        found += mine[:wanted]
    random.shuffle(found)
    return np.stack(found[:total])
