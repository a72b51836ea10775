"""A record with pictures, video or sound → one window: ids by the model's own processor, and what each token is."""

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...inputs import Example, align, label_tokens
from ...models import chat
from ...models.loading import Loaded
from ...models.multimodal.asking import Question, ask
from ...models.multimodal.places import UNITS, VIEWS, Pieces, pieces
from ...models.multimodal.processor import array, batch_of
from ..sequences.sequence_info import SequenceInfo

Offsets = list[tuple[int, int]]
_ONE = {"image": "an image", "video": "a video", "audio": "sound"}


def seen(
    loaded: Loaded, example: Example, info: SequenceInfo, limit: int, generate: bool
) -> tuple[SequenceInfo, list[int], Any, bool, Any]:
    """What is known of the window, its ids, what the processor is asked, whether labels could not be placed, and bare spans.

    InputError naming the record where the model has no processor, the processor fails, or the record is too long.
    """
    where = f"{example.source}, row {example.row}"
    processor = loaded.own_processor()
    if processor is None:
        kinds = " and ".join(dict.fromkeys(_ONE[medium.kind] for medium in example.media))
        raise InputError(
            f"{where} has {kinds} beside its text, and {loaded.name} {loaded.no_processor}; give its processor, or texts alone "
            "(--no-media)"
        )
    if example.input_ids is not None:
        raise InputError(f"{where} has ids and {example.media[0].kind}s, of which no processor makes inputs; give its text")
    question = ask(processor, example, generate)
    fast = bool(getattr(processor.tokenizer, "is_fast", False))
    batch = batch_of(processor, [question.asked], offsets=fast)
    ids = array(batch["input_ids"])[0].tolist()
    if len(ids) > limit:
        raise InputError(
            f"{where} is {len(ids)} tokens with its {example.media[0].kind}s, which cannot be cut into windows, and {limit} "
            "are the most; give less or smaller ones"
        )
    found = pieces(processor, getattr(loaded.model, "config", None), question.asked, batch)
    offsets = _offsets(batch) if fast else None
    told = replace(info, text=question.asked.text, pieces=found, media=question.asked.media)
    told, unplaced, bare = _labelled(told, example, question, offsets, _words_of(batch))
    made = {"modality": "text", **(question.rendered.next if question.rendered is not None and generate else {})}
    labels = {**told.token_labels, **piece_labels(found)}
    if generate and (said := question.rendered) is not None:
        told = replace(told, following=chat.following(processor.tokenizer, said.marks, said.thinking))
    return replace(told, token_labels=labels, made_labels=made), ids, question.asked, unplaced, bare


def piece_labels(found: Pieces) -> dict[str, list[str | None]]:
    """Labels of every token: its modality; of pieces which medium it is of, its frame, and its view where there are several."""
    unit, medium = found.unit, found.medium
    labels: dict[str, list[str | None]] = {
        "modality": [UNITS[u] for u in unit],
        "medium": [f"{UNITS[u]} {m}" if m >= 0 else None for u, m in zip(unit, medium)],
        "frame": [str(f) if f >= 0 else None for f in found.frame],
        "view": [VIEWS[v] or None for v in found.view],
    }
    return {kind: values for kind, values in labels.items() if any(value is not None for value in values)}


def _offsets(batch: Any) -> Offsets | None:
    """Where each token stands in the text that was asked, media being one word each; None where the batch does not say."""
    if "offset_mapping" not in batch:
        return None
    offsets = array(batch["offset_mapping"])[0].astype(np.int64)
    replaced = batch.get("text_replacement_offsets") or [[]]
    shift = 0
    found = offsets.copy()
    for one in replaced[0]:
        (start, end), (first, last) = one["span"], one["new_span"]
        inside = (offsets[:, 0] >= first) & (offsets[:, 1] <= last) & (offsets[:, 1] > offsets[:, 0])
        found[inside] = start, end
        shift = (last - first) - (end - start) + shift
        behind = offsets[:, 0] >= last
        found[behind] = offsets[behind] - shift
    return [(int(a), int(b)) for a, b in found]


def _words_of(batch: Any) -> Offsets:
    """Where the word for each medium stands in the text that was asked."""
    return [(int(one["span"][0]), int(one["span"][1])) for one in (batch.get("text_replacement_offsets") or [[]])[0]]


def _with_shown(
    labels: dict[str, list[str | None]], offsets: Offsets, shown: tuple[tuple[str, int], ...], spans: Offsets
) -> dict[str, list[str | None]]:
    """Tokens of a medium are of whoever shows it, though the template writes the word for it."""
    if len(shown) != len(spans):
        return labels
    found = {kind: list(labels.get(kind) or [None] * len(offsets)) for kind in ("role", "turn")}
    for (role, turn), span in zip(shown, spans):
        for n, pair in enumerate(offsets):
            if pair == span:
                found["role"][n], found["turn"][n] = role, str(turn)
    return {**labels, **found}


def _labelled(
    info: SequenceInfo, example: Example, question: Question, offsets: Offsets | None, spans: Offsets
) -> tuple[SequenceInfo, bool, Any]:
    """With labels of roles, words and spans; whether they could not be placed; and spans that label no token."""
    labels: dict[str, list[str | None]] = {}
    if question.rendered is not None and offsets is not None:
        labels |= _with_shown(chat.labels_at(question.rendered, offsets), offsets, question.shown, spans)
    if not example.words and not example.spans:
        return replace(info, token_labels=labels), False, ()
    if offsets is None or question.kept is None:
        return replace(info, token_labels=labels), True, ()
    own = [_back(pair, question.kept) for pair in offsets]
    words = align(example.words, own) if example.words else ()
    marks, bare = label_tokens(example.spans, own)
    told = replace(info, words=words, word_labels=[word.labels for word in example.words], token_labels={**labels, **marks})
    return told, False, bare


def _back(pair: tuple[int, int], kept: tuple[tuple[int, int, int], ...]) -> tuple[int, int]:
    """A place in what was asked as a place in the record's text; nowhere, if it is the template's or a medium's."""
    start, end = pair
    for at, own, size in kept:
        if start < at + size and end > at and end > start:
            return max(start, at) - at + own, min(end, at + size) - at + own
    return 0, 0
