"""Name every row: which token of which sequence it is, and which rows are padding. Runs on the writing thread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import numpy as np

from ..store import RunWriter
from .frames import Stream
from .live import Live


@dataclass(frozen=True)
class SequenceInfo:
    """What is known of a sequence beside its tokens; `words` and `token_labels` go with its tokens, padding left out."""

    source: str | None = None
    row: int = 0
    part: int = 0
    document: str | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[int | None] = ()
    word_labels: Sequence[Mapping[str, str]] = ()  # by word number


class Identity:
    """Gives keys to sequences and tokens and writes their rows."""

    def __init__(
        self,
        writer: RunWriter,
        text_of: Callable[[Sequence[int]], list[str]] | None,
        special: set[int],
        stops: tuple[set[int], set[int]] = (set(), set()),
    ) -> None:
        self.writer, self.text_of = writer, text_of
        self.special = np.array(sorted(special), np.int64)
        self.ends, self.pads = (np.array(sorted(ids), np.int64) for ids in stops)
        self._live: dict[int, Live] = {}
        self._seen: set[int] = set()

    @classmethod
    def of(cls, writer: RunWriter, model: Any, tokenizer: Any) -> "Identity":
        """For a model and its tokenizer, if it has one."""
        if tokenizer is None:
            return cls(writer, None, set(), stops(model))

        def texts(ids: Sequence[int]) -> list[str]:
            pairs = zip((tokenizer.decode([i]) for i in ids), tokenizer.convert_ids_to_tokens(list(ids)))
            return [piece if "\ufffd" in decoded or not decoded else decoded for decoded, piece in pairs]

        return cls(writer, texts, set(tokenizer.all_special_ids), stops(model))

    def rows(self, stream: Stream, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """(sequences × places,) token key of every row; -1 for padding."""
        ids = arrays.get("ids")
        mask = _mask(stream, ids, arrays.get("mask"))
        live = self._live.get(stream.generation) if stream.continues else None
        decoding = live is not None and stream.decodes
        if live is not None:
            self._reject(live.happened(stream.events, arrays))
        if live is None or len(live.sequences) != stream.shape[0]:
            live, decoding = Live(self._sequences(stream, mask)), False
            self._live = dict(list(self._live.items())[-64:]) | {stream.generation: live}
        if live.said is not stream.infos:
            live.tell(stream.infos, _infos(stream, stream.shape[0])[0])
        if decoding and ids is not None:
            live.ended &= _among(ids[:, 0], self.pads)
            mask = mask & ~live.ended[:, None]
            live.ended |= _among(ids[:, 0], self.ends)
        keys = self._tokens(stream, live, ids, mask, decoding)
        live.fed(keys)
        return keys.reshape(-1)

    def _reject(self, tokens: np.ndarray) -> None:
        """Drafts that assisted decoding threw away were routed, but are no part of their sequence."""
        if len(tokens):
            self.writer.add(
                "token_labels", {"token": tokens, "kind": ["draft"] * len(tokens), "label": ["rejected"] * len(tokens)}
            )

    def _sequences(self, stream: Stream, mask: np.ndarray) -> np.ndarray:
        size, places = stream.shape
        first = self.writer.take("sequence", size)
        keys = np.arange(first, first + size)
        infos, beams = _infos(stream, size)
        side = isqrt(places if stream.kind == "image" else 0)
        self.writer.add(
            "sequences",
            {
                "sequence": keys,
                "source": [i.source for i in infos],
                "source_row": np.array([i.row for i in infos], np.int64),
                "part": np.array([i.part for i in infos], np.int32),
                "beam": beams,
                "document": [i.document if i.document is not None else f"{first + n}" for n, i in enumerate(infos)],
                "stack": stream.stack,
                "domain": [i.labels.get("domain") for i in infos],
                "class": [i.labels.get("class") for i in infos],
                "text": [i.text for i in infos],
                "tokens": mask.sum(1),
                **({"height": side, "width": side} if stream.kind == "image" else {}),
            },
        )
        labels = [(key, kind, str(label)) for key, info in zip(keys, infos) for kind, label in info.labels.items()]
        if labels:
            sequence, kind, label = map(list, zip(*labels))
            self.writer.add("sequence_labels", {"sequence": sequence, "kind": kind, "label": label})
        return keys

    def _tokens(self, stream: Stream, live: Live, ids: Any, mask: np.ndarray, decoding: bool) -> np.ndarray:
        row, place = _real(mask)
        first = self.writer.take("token", len(row))
        keys = np.full(mask.shape, -1, np.int64)
        keys[row, place] = np.arange(first, first + len(row))
        before = place if len(row) == mask.size else (np.cumsum(mask, 1) - 1)[row, place]
        position = before + live.counts[row]
        columns: dict[str, Any] = {"token": keys[row, place], "sequence": live.sequences[row], "position": position}
        if stream.kind == "image":
            columns |= _patches(stream.shape[1], place)
        elif ids is not None:
            vocab = ids[row, place].astype(np.int64)
            self._vocab(vocab)
            columns |= {"unit": "text", "vocab_id": vocab, "special": _among(vocab, self.special)}
        else:
            columns |= {"unit": "text" if stream.kind == "text" else "row", "special": False}
        known = position < live.until[row]
        if known.any():
            columns |= self._words(live, known, row, position, columns["token"])
        if live.reordered:
            columns["parent"] = _parents(keys, live.last, row, place)
        self.writer.add("tokens", {**columns, "generated": decoding})
        return keys

    def _words(self, live: Live, known: np.ndarray, row: np.ndarray, position: np.ndarray, token: np.ndarray) -> dict[str, Any]:
        infos, places = live.infos, position - live.since[row]
        words = [infos[r].words[p] if there else None for there, r, p in zip(known, row, places)]
        labels = [
            (int(t), kind, label)
            for r, word, t in zip(row, words, token)
            if word is not None and word < len(infos[r].word_labels)
            for kind, label in infos[r].word_labels[word].items()
        ]
        if labels:
            tokens, kinds, values = map(list, zip(*labels))
            self.writer.add("token_labels", {"token": tokens, "kind": kinds, "label": values})
        import pyarrow as pa

        return {"word": pa.array(words, pa.uint32())}

    def _vocab(self, ids: np.ndarray) -> None:
        if self.text_of is None:
            return
        new = sorted(set(ids.tolist()) - self._seen)
        if new:
            self._seen.update(new)
            self.writer.add("vocab", {"vocab_id": new, "text": self.text_of(new)})


def stops(model: Any) -> tuple[set[int], set[int]]:
    """Ids that end a generated sequence, and ids that `generate` then feeds in its place while others go on."""
    settings = [getattr(model, name, None) for name in ("generation_config", "config")]
    ends, pads = (
        next(
            (set(v if isinstance(v, list) else [v]) for s in settings if isinstance(v := getattr(s, name, None), int | list)),
            set(),
        )
        for name in ("eos_token_id", "pad_token_id")
    )
    return ends, pads or ends


def _infos(stream: Stream, size: int) -> tuple[list[SequenceInfo], np.ndarray]:
    """An info for each row, repeated for beams where there are several rows for each."""
    infos = stream.infos or []
    times = size // len(infos) if infos and size % len(infos) == 0 else 0
    if not times:
        return [SequenceInfo() for _ in range(size)], np.zeros(size, np.int32)
    return [info for info in infos for _ in range(times)], np.tile(np.arange(times, dtype=np.int32), len(infos))


def _mask(stream: Stream, ids: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
    if mask is not None:
        return mask.astype(bool)
    real = np.ones(stream.shape, bool)
    if ids is not None and stream.trailing_pad is not None and stream.shape[1] > 1:
        trailing = np.cumprod((ids == stream.trailing_pad)[:, ::-1], 1)[:, ::-1].astype(bool)
        real &= ~trailing
        real[:, 0] = True
    return real


def _real(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place of everything that is no padding, row by row."""
    if not mask.all():
        row, place = np.nonzero(mask)
        return row, place
    rows, places = np.arange(mask.shape[0])[:, None], np.arange(mask.shape[1])
    return np.broadcast_to(rows, mask.shape).reshape(-1), np.broadcast_to(places, mask.shape).reshape(-1)


def _among(ids: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which ids (N,) are among some: a step of decoding has few of both."""
    if len(some) > 8:
        return np.isin(ids, some)
    found = np.zeros(len(ids), bool)
    for one in some:
        found |= ids == one
    return found


def _parents(keys: np.ndarray, last: np.ndarray, row: np.ndarray, place: np.ndarray) -> Any:
    """The token before each in its own hypothesis: beams change rows between steps."""
    import pyarrow as pa

    before = np.where(place == 0, last[row], keys[row, np.maximum(place - 1, 0)])
    return pa.array(before, pa.int64(), mask=before < 0)


def _patches(places: int, place: np.ndarray) -> dict[str, Any]:
    """Grid coordinates: a square of patches, after a class token where the count leaves one over."""
    import pyarrow as pa

    side = isqrt(places)
    lead = places - side * side
    patch = place >= lead
    where = place - lead
    return {
        "unit": np.where(patch, "patch", "cls").tolist(),
        "y": pa.array(where // side, pa.int32(), mask=~patch),
        "x": pa.array(where % side, pa.int32(), mask=~patch),
        "special": ~patch,
    }
