"""What the caller tells of sequences beside their tokens, and which token each of it is of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .cached_sequences import CachedSequences
from .named import Named
from .streams import Stream
from .told_pieces import of_pictures

Labels = list[tuple[int, str, str]]
"""(token, kind, label)"""


@dataclass(frozen=True)
class SequenceInfo:
    """What is known of a sequence beside its tokens; `words` and `token_labels` go with its tokens, padding left out, and say
    nothing of those that come behind, of which each that the model makes has `made_labels`."""

    source: str | None = None
    row: int = 0
    part: int = 0
    document: str | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[int | None] = ()
    word_labels: Sequence[Mapping[str, str]] = ()  # by word number
    token_labels: Mapping[str, Sequence[str | None]] = field(default_factory=dict)  # kind: one for each token
    made_labels: Mapping[str, str] = field(default_factory=dict)
    following: Any = None  # which of what the model makes is thought (models.chat.Following)
    pieces: Any = None  # which of its tokens are pieces of media, and where in them (models.multimodal.places)
    media: Sequence[Any] = ()  # the pictures, video and sound that it speaks of, in order
    shown: dict[Any, Any] = field(
        default_factory=dict
    )  # them as the model saw them, where they were cropped or cut: once it is fed

    @property
    def told(self) -> int:
        """Of how many tokens, from the first on, something is known."""
        return max(map(len, (self.words, *self.token_labels.values())))

    def labels_of(self, token: int) -> Iterator[tuple[str, str]]:
        """(kind, label) of a token: of its word, and its own."""
        word = self.words[token] if token < len(self.words) else None
        if word is not None and word < len(self.word_labels):
            yield from self.word_labels[word].items()
        for kind, values in self.token_labels.items():
            value = values[token] if token < len(values) else None
            if value is not None:
                yield kind, value


def told(
    stream: Stream, named: Named, row: np.ndarray, place: np.ndarray, token: np.ndarray
) -> tuple[list[int | None], Labels]:
    """Of tokens (N,) of prompts the word, and labels; nothing of requests, which come as they will."""
    live, position = named.live, named.position[row, place]
    if stream.requests is not None:
        return [], []
    if named.packed is not None:
        infos, which, places = infos_of(stream, stream.units)[0], named.unit[row, place], position
        known = np.array([p < infos[n].told for n, p in zip(which, places)], bool)
    else:
        infos, which, places = live.infos, row, position - live.since[row]
        known = position < live.until[row]
    if not known.any():
        return [], []
    words = [infos[n].words[p] if there and p < len(infos[n].words) else None for there, n, p in zip(known, which, places)]
    labels = [
        (int(t), kind, label)
        for there, n, p, t in zip(known, which, places, token)
        if there
        for kind, label in infos[n].labels_of(int(p))
    ]
    return words, labels


def made(named: Named, row: np.ndarray, place: np.ndarray, token: np.ndarray, ids: np.ndarray | None) -> Labels:
    """Labels of those tokens (N,) that the model made; `ids` (N,)."""
    infos = named.live.infos
    if named.packed is not None or not any(info.made_labels for info in infos):
        return []
    generated = named.generated[row, place]
    labels = [(int(t), *one) for n, t in zip(row[generated], token[generated]) for one in infos[n].made_labels.items()]
    if ids is not None and any(info.following for info in infos):
        labels += _thought(named.live, row[generated], token[generated], ids[generated])
    return labels


def _thought(live: CachedSequences, row: np.ndarray, token: np.ndarray, ids: np.ndarray) -> Labels:
    """Those that are thought; each row's own state goes on with it."""
    labels: Labels = []
    for n, key, one in zip(row.tolist(), token.tolist(), ids.tolist()):
        follows = live.infos[n].following
        if follows is not None and not live.lost:
            live.heard[n], thought = follows.step(live.heard[n] or follows.begins, one)
            labels += [(key, "reasoning", "true")] * thought
    return labels


def infos_of(stream: Stream, size: int) -> tuple[list[SequenceInfo], np.ndarray]:
    """An info for each sequence, repeated for beams where there are several rows for each; of a packed row the labels."""
    infos = stream.infos or []
    infos = of_pictures(infos, size) if stream.kind == "image" else infos
    rows = stream.packed
    if rows is not None and len(infos) == stream.shape[0] != size:
        bare: dict[str, Any] = {"text": None, "words": (), "word_labels": (), "token_labels": {}, "document": None}
        return [replace(infos[row], **bare) for row in rows], np.zeros(size, np.int32)
    times = size // len(infos) if infos and size % len(infos) == 0 else 0
    if not times or (rows is not None and times > 1):
        return [SequenceInfo() for _ in range(size)], np.zeros(size, np.int32)
    return [info for info in infos for _ in range(times)], np.tile(np.arange(times, dtype=np.int32), len(infos))
