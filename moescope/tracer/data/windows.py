"""Examples → windows of ids or images, each with what is known of it; a long text becomes several windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...inputs import Dataset, Example, Span, align, label_tokens, one_shape, spell
from ...models import chat
from ...models.loading import Loaded
from ...models.multimodal.places import media_ids
from ...models.spans import corrupt
from ..sequences.sequence_info import SequenceInfo
from .media_windows import seen

Offsets = list[tuple[int, int]]  # (start, end) in characters of each token


@dataclass(frozen=True)
class Window:
    """One row of a batch."""

    info: SequenceInfo
    ids: list[int] | None = None
    image: Any = None
    decoder_ids: list[int] | None = None
    decoder_info: SequenceInfo | None = None
    unplaced: bool = False  # labels of parts of its text were left out: nobody knows where its tokens are
    asked: Any = None  # of a text with media: what the model's processor is asked
    bare: tuple[Span, ...] = ()  # spans of its example that label no token; said of the first part

    def __len__(self) -> int:
        """Tokens, of both sides."""
        return len(self.ids or ()) + len(self.decoder_ids or ())


def context(loaded: Loaded) -> int:
    """Tokens that the model takes at once."""
    config = getattr(loaded.model, "config", None)
    text = getattr(config, "text_config", config)
    sizes = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    return next((s for s in sizes if isinstance(s, int) and s > 0), 1 << 20)


def windows(loaded: Loaded, data: Dataset, max_length: int | None, seed: int, generate: bool = False) -> Iterator[Window]:
    """All windows of a data set in order; with `generate`, conversations up to where the model speaks.

    InputError where data and model do not fit.
    """
    if loaded.by_hand:
        raise InputError(
            f"{loaded.name} takes more than {data.kind}s, which no data set gives; trace it in Python: with "
            "moescope.Tracer(model, store): model(**moescope.models.zoo.example_of(model))"
        )
    if data.kind != loaded.reads:
        more = " (pictures alone with --prompt, the text beside each)" if data.kind == "image" and loaded.processor else ""
        raise InputError(
            f"{loaded.name} reads {loaded.reads}s, but {data.name} holds {data.kind}s; give it {loaded.reads}s{more}"
        )
    if data.kind == "image":
        one_shape(data)
        yield from (Window(_info(example, 0), image=example.image) for example in data.examples)
        return
    if loaded.pipe is not None:
        yield from (prompt for example in data.examples for prompt in _prompts(loaded, example))
        return
    limit, most = (max_length or 2048, max_length or context(loaded)), _vocabulary(loaded)
    beside = loaded.processor is not None and bool(media_ids(getattr(loaded.model, "config", None)))
    for number, example in enumerate(data.examples):
        for window in _windows(loaded, example, limit, generate):
            window = _as_text(window) if beside else window
            _known(loaded, window, most)
            yield _seq2seq(loaded, window, seed + number) if _is_seq2seq(loaded) else window


def _as_text(window: Window) -> Window:
    """A text alone, for a model that takes media: all of its tokens are text."""
    if window.asked is not None:
        return window
    labels = {**window.info.token_labels, "modality": ["text"] * len(window.ids or ())}
    made = {**window.info.made_labels, "modality": "text"}
    return replace(window, info=replace(window.info, token_labels=labels, made_labels=made))


def _windows(loaded: Loaded, example: Example, limit: tuple[int, int], generate: bool) -> Iterator[Window]:
    """Of one example; `limit`: tokens of a window, and of what cannot be cut."""
    whole, cut = min(limit[1], context(loaded)), min(limit[0], context(loaded))
    if example.media:
        info, ids, asked, unplaced, bare = seen(loaded, example, _info(example, 0), whole, generate)
        yield Window(info, ids=ids, asked=asked, unplaced=unplaced, bare=bare)
        return
    yield from _talk(loaded, example, cut, generate) if example.messages else _text(loaded, example, cut)


def _prompts(loaded: Loaded, example: Example) -> Iterator[Window]:
    """One for each line, for a pipeline."""
    if example.text is None:
        what = "a conversation" if example.messages else "token ids"
        raise InputError(f"{loaded.name} takes prompts, and {example.source}, row {example.row} is {what}; give texts")
    lines = [line.strip() for line in example.text.splitlines() if line.strip()]
    yield from (Window(_info(example, part, text=line)) for part, line in enumerate(lines))


def _vocabulary(loaded: Loaded) -> int | None:
    """Rows of the model's embedding of input ids; None where it has none of the usual kind."""
    try:
        rows = loaded.model.get_input_embeddings().num_embeddings  # type: ignore[operator, union-attr]
    except (AttributeError, NotImplementedError):
        return None
    return rows if isinstance(rows, int) else None


def _known(loaded: Loaded, window: Window, most: int | None) -> None:
    """InputError for ids that the model has no embedding for; on a GPU they would end the whole process."""
    ids = window.ids or [0]
    if most is None or (min(ids) >= 0 and max(ids) < most):
        return
    worst = max(ids) if max(ids) >= most else min(ids)
    where = f"{window.info.source}, row {window.info.row}"
    if loaded.tokenizer is not None and window.info.text is not None:
        raise InputError(
            f"the tokenizer of {loaded.name} makes id {worst} of {where}, which has no embedding ({most} ids); give its own"
        )
    raise InputError(f"{where} holds id {worst}, but {loaded.name} embeds ids 0 to {most - 1}; give ids of its own tokenizer")


def _info(example: Example, part: int, **more: Any) -> SequenceInfo:
    return SequenceInfo(example.source, example.row, part, example.document, labels=dict(example.labels), **more)


def _text(loaded: Loaded, example: Example, limit: int) -> Iterator[Window]:
    if example.input_ids is not None:
        ids, offsets = [int(i) for i in example.input_ids], None
    else:
        ids, offsets = _tokenize(loaded, example.text or "", bool(example.words or example.spans))
    words = align(example.words, offsets) if offsets is not None and example.words else []
    labels = [word.labels for word in example.words]
    own, bare = label_tokens(example.spans, offsets) if offsets is not None else (example.token_labels, ())
    unplaced = offsets is None and bool(example.words or example.spans)
    for part, start in enumerate(range(0, len(ids), limit)):
        here = slice(start, start + limit)
        text = _slice(example.text, offsets, here)
        marks = {kind: values[here] for kind, values in own.items()}
        info = _info(example, part, text=text, words=words[here], word_labels=labels, token_labels=marks)
        yield Window(info, ids=ids[here], unplaced=unplaced, bare=() if part else bare)


def _talk(loaded: Loaded, example: Example, limit: int, generate: bool) -> Iterator[Window]:
    """A conversation, by the tokenizer's template. InputError where a model would go on from the middle of it."""
    where = f"{example.source}, row {example.row}"
    rendered = chat.render(loaded.tokenizer, example.messages, example.tools or None, where, generate)
    found = chat.tokens(loaded.tokenizer, rendered, where)
    if generate and len(found.ids) > limit:
        raise InputError(
            f"{where} is a conversation of {len(found.ids)} tokens, and a window holds {limit}, so the model would go on from "
            "its middle: give a larger --max-length (as far as the model's own length), or leave it out"
        )
    for part, start in enumerate(range(0, len(found.ids), limit)):
        here = slice(start, start + limit)
        labels = {kind: values[here] for kind, values in found.labels.items()}
        text = _slice(rendered.text, found.offsets, here)
        info = _info(example, part, text=text, token_labels=labels, made_labels=rendered.next if generate else {})
        if generate:
            info = replace(info, following=chat.following(loaded.tokenizer, rendered.marks, rendered.thinking))
        yield Window(info, ids=found.ids[here])


def _tokenize(loaded: Loaded, text: str, labelled: bool) -> tuple[list[int], Offsets | None]:
    if loaded.tokenizer is None:
        raise InputError(
            f"{loaded.name} {loaded.no_tokenizer}, so it cannot read text; give it ids: lists, or an .npz with input_ids"
        )
    if not getattr(loaded.tokenizer, "is_fast", False):
        ids = loaded.tokenizer(text, verbose=False)["input_ids"]
        return ids, _spelled(loaded.tokenizer, text, ids) if labelled else None
    encoded = loaded.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], [tuple(pair) for pair in encoded["offset_mapping"]]
    return ids, _unmarked(loaded.tokenizer.convert_ids_to_tokens(ids), text, offsets) if labelled else offsets


def _spelled(tokenizer: Any, text: str, ids: list[int]) -> Offsets | None:
    """Where tokens are by what they spell, for tokenizers that do not say it."""
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return spell(text, pieces, [i in special for i in ids], lambda some: tokenizer.decode(ids[some]))


def _unmarked(pieces: list[str], text: str, offsets: Offsets) -> Offsets:
    """The mark of white space that is put before a text has the place of the text's first letter: it has none of its own."""
    own = {"", "▁"}
    return [
        (start, start) if piece == "▁" and text[start:end].strip() not in own else (start, end)
        for piece, (start, end) in zip(pieces, offsets)
    ]


def _slice(text: str | None, offsets: Offsets | None, here: slice) -> str | None:
    if text is None or offsets is None:
        return text
    ends = [pair for pair in offsets[here] if pair[1] > pair[0]]
    return text[ends[0][0] : ends[-1][1]] if ends else ""


def _is_seq2seq(loaded: Loaded) -> bool:
    return bool(getattr(getattr(loaded.model, "config", None), "is_encoder_decoder", False))


def _seq2seq(loaded: Loaded, window: Window, seed: int) -> Window:
    """What encoder and decoder see: spans corrupted where the tokenizer has sentinels, else the text on both sides."""
    assert window.ids is not None
    config: Any = loaded.model.config
    start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
    vocabulary = loaded.tokenizer.get_vocab() if loaded.tokenizer is not None else {}
    sentinels = [vocabulary[f"<extra_id_{i}>"] for i in range(100) if f"<extra_id_{i}>" in vocabulary]
    if not sentinels or len(window.ids) < 3:
        places: list[int | None] = [None, *range(len(window.ids) - 1)]
        return replace(window, decoder_ids=[start, *window.ids[:-1]], decoder_info=_moved(window.info, places))
    ends = window.ids[-1] == config.eos_token_id
    cut = corrupt(window.ids[:-1] if ends else window.ids, sentinels, config.eos_token_id, np.random.default_rng(seed))
    return replace(
        window,
        info=_moved(window.info, cut.source_of),
        ids=cut.source,
        decoder_ids=[start, *cut.target[:-1]],
        decoder_info=_moved(window.info, [None, *cut.target_of[:-1]]),
    )


def _moved(info: SequenceInfo, places: list[int | None]) -> SequenceInfo:
    def moved(values: Sequence[Any]) -> list[Any]:
        return [values[p] if p is not None and p < len(values) else None for p in places]

    marks = {kind: moved(values) for kind, values in info.token_labels.items()}
    return replace(info, words=moved(info.words) if info.words else (), token_labels=marks)


def decoder_info(window: Window, generate: bool) -> SequenceInfo:
    """What is known of the decoder's side: nothing of its tokens, where it writes a text of its own."""
    if window.decoder_info is not None and generate:
        return replace(window.decoder_info, words=(), token_labels={})
    return window.decoder_info or window.info
