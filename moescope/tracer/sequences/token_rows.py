"""Name every row: which token of which sequence it is, and which rows are padding. Runs on the writing thread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...store import RunWriter
from .generating import stops
from .image_patches import UNITS, in_text, patches, sizes
from .naming import Named, Sequences, among
from .pictures import kept_pictures
from .streams import Stream
from .told_pieces import of_pictures, told


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
    pieces: Any = None  # which of its tokens are pieces of media, and where in them (models.multimodal.places)
    media: Sequence[Any] = ()  # the pictures, video and sound that it speaks of, in order
    shown: dict[Any, Any] = field(default_factory=dict)  # them as the model saw them, where they were cropped or cut: once it is fed

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


class Identity:
    """Gives keys to sequences and tokens and writes their rows."""

    def __init__(
        self,
        writer: RunWriter,
        text_of: Callable[[Sequence[int]], list[str]] | None,
        special: set[int],
        stops: tuple[set[int], set[int]] = (set(), set()),
        pictures: int = 0,
    ) -> None:
        self.writer, self.text_of, self._pictures = writer, text_of, pictures
        self.special = np.array(sorted(special), np.int64)
        self.sequences = Sequences(lambda count: writer.take("sequence", count), stops)
        self._seen: set[int] = set()

    @classmethod
    def of(cls, writer: RunWriter, model: Any, tokenizer: Any, pictures: int = 0) -> "Identity":
        """For a model and its tokenizer, if it has one; `pictures`: so many are kept."""
        if tokenizer is None:
            return cls(writer, None, set(), stops(model), pictures)

        def texts(ids: Sequence[int]) -> list[str]:
            pairs = zip((tokenizer.decode([i]) for i in ids), tokenizer.convert_ids_to_tokens(list(ids)))
            return [piece if "\ufffd" in decoded or not decoded else decoded for decoded, piece in pairs]

        return cls(writer, texts, set(tokenizer.all_special_ids), stops(model), pictures)

    def rows(self, stream: Stream, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Named]:
        """(sequences, places) token key of every row, -1 for padding; and what else its places are."""
        named = self.sequences.name(stream, arrays)
        self._reject(named.rejected)
        if named.begun is not None:
            self._sequences(stream, named, arrays)
        ids = arrays.get("ids")
        if named.live.said is not stream.infos and named.packed is None:
            named.live.tell(stream.infos, _infos(stream, stream.shape[0])[0])
        keys = self._tokens(stream, named, ids, arrays)
        named.fed(keys, ids, stream.reruns)
        return named.stored(keys), named

    def notes(self) -> list[str]:
        """Sentences on what could not be told, and on what was run more than once."""
        return self.sequences.notes()

    def _reject(self, tokens: np.ndarray) -> None:
        """Drafts that assisted decoding threw away were routed, but are no part of their sequence."""
        if len(tokens):
            self.writer.add(
                "token_labels", {"token": tokens, "kind": ["draft"] * len(tokens), "label": ["rejected"] * len(tokens)}
            )

    def _sequences(self, stream: Stream, named: Named, arrays: Mapping[str, np.ndarray]) -> None:
        """Rows of the sequences that begin."""
        assert named.begun is not None
        size = len(named.begun)
        first = int(named.sequence[0, 0] - named.unit[0, 0])
        keys = np.arange(first, first + size)
        stream.packed = named.packed
        infos, beams = _infos(stream, size)
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
                "tokens": named.begun,
                **sizes(stream, arrays),
            },
        )
        if self._pictures > 0 and (columns := kept_pictures(keys[beams == 0], [i for i, b in zip(infos, beams) if not b], self._pictures))["file"]:
            self._pictures -= len(columns["file"])
            self.writer.add("pictures", columns)
        labels = [(key, kind, str(label)) for key, info in zip(keys, infos) for kind, label in info.labels.items()]
        if labels:
            sequence, kind, label = map(list, zip(*labels))
            self.writer.add("sequence_labels", {"sequence": sequence, "kind": kind, "label": label})

    def _tokens(self, stream: Stream, named: Named, ids: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        row, place = _real(named.fresh)
        keys = named.keys(lambda count: self.writer.take("token", count))
        token, position = keys[row, place], named.position[row, place]
        columns: dict[str, Any] = {"token": token, "sequence": named.sequence[row, place], "position": position}
        columns |= {"generated": named.generated[row, place]}
        if stream.kind == "image":
            columns |= patches(stream, row, place, arrays)
            self._frames(token, columns.pop("frame"))
        elif ids is not None:
            vocab = ids[row, place].astype(np.int64)
            columns |= {"unit": "text", "vocab_id": vocab, "special": among(vocab, self.special)}
            columns |= self._pictured(stream, named, columns, ids, arrays, row, place)
            self._vocab(vocab)
        else:
            columns |= {"unit": stream.kind, "special": False}
        columns |= self._words(stream, named, row, place, token)
        self._made(named, row, place, token)
        if named.live.reordered:
            columns["parent"] = _parents(keys, named.live.last, row, place)
        self.writer.add("tokens", columns)
        return keys

    def _pictured(
        self, stream: Stream, named: Named, columns: dict[str, Any], ids: Any, arrays: Mapping[str, np.ndarray],
        row: np.ndarray, place: np.ndarray,
    ) -> dict[str, Any]:  # fmt: skip
        """Columns of tokens of which some are pieces of a picture."""
        cells = in_text(stream.media, stream.merge, ids, arrays) if stream.media or stream.facts else None
        known = told(named, row, place)
        if cells is None and known is None:
            return {}
        import pyarrow as pa

        where = row * named.real.shape[1] + place
        unit, frame, y, x = known if cells is None else (a[where] for a in (cells.unit, cells.frame, cells.y, cells.x))
        if known is not None and cells is not None:
            unit, frame, y, x = (np.where(known[0] >= 0, one, other) for one, other in zip(known, (unit, frame, y, x)))
        unit = np.maximum(unit, 0)
        self._frames(columns["token"], frame)
        return {
            "unit": [UNITS[u] for u in unit],
            "vocab_id": pa.array(columns["vocab_id"], pa.uint32(), mask=unit > 0),
            "special": columns["special"] & (unit == 0),
            "y": pa.array(y, pa.int32(), mask=y < 0),
            "x": pa.array(x, pa.int32(), mask=x < 0),
        }

    def _frames(self, token: np.ndarray, frame: np.ndarray) -> None:
        """The label `frame` of tokens that lie in one."""
        if (frame >= 0).any():
            labels = [str(f) for f in frame[frame >= 0]]
            self.writer.add("token_labels", {"token": token[frame >= 0], "kind": ["frame"] * len(labels), "label": labels})

    def _words(self, stream: Stream, named: Named, row: np.ndarray, place: np.ndarray, token: np.ndarray) -> dict[str, Any]:
        """The words that prompts' tokens are of; their labels and the tokens' own are added."""
        live, position = named.live, named.position[row, place]
        if named.packed is not None:
            infos, which, places = _infos(stream, stream.units)[0], named.unit[row, place], position
            known = np.array([p < infos[n].told for n, p in zip(which, places)], bool)
        else:
            infos, which, places = live.infos, row, position - live.since[row]
            known = position < live.until[row]
        if not known.any():
            return {}
        words = [infos[n].words[p] if there and p < len(infos[n].words) else None for there, n, p in zip(known, which, places)]
        labels = [
            (int(t), kind, label)
            for there, n, p, t in zip(known, which, places, token)
            if there
            for kind, label in infos[n].labels_of(int(p))
        ]
        self._label(labels)
        import pyarrow as pa

        return {"word": pa.array(words, pa.uint32())} if any(word is not None for word in words) else {}

    def _made(self, named: Named, row: np.ndarray, place: np.ndarray, token: np.ndarray) -> None:
        """Labels of tokens that the model made."""
        infos = named.live.infos
        if named.packed is None and any(info.made_labels for info in infos):
            made = named.generated[row, place]
            self._label([(int(t), *one) for n, t in zip(row[made], token[made]) for one in infos[n].made_labels.items()])

    def _label(self, labels: list[tuple[int, str, str]]) -> None:
        """Write (token, kind, label)."""
        if labels:
            tokens, kinds, values = map(list, zip(*labels))
            self.writer.add("token_labels", {"token": tokens, "kind": kinds, "label": values})

    def _vocab(self, ids: np.ndarray) -> None:
        if self.text_of is None:
            return
        new = sorted(set(ids.tolist()) - self._seen)
        if new:
            self._seen.update(new)
            self.writer.add("vocab", {"vocab_id": new, "text": self.text_of(new)})


def distinct(keys: Sequence[np.ndarray]) -> int:
    """How many tokens a forward has, of which several streams may hold the same."""
    whole = keys[0] if len(keys) == 1 else np.unique(np.concatenate(keys)) if keys else np.empty(0)
    return int((whole >= 0).sum())


def _infos(stream: Stream, size: int) -> tuple[list[SequenceInfo], np.ndarray]:
    """An info for each sequence, repeated for beams where there are several rows for each; of a packed row the labels."""
    infos = stream.infos or []
    if stream.kind == "image":
        infos = of_pictures(infos, size)
    rows = stream.packed
    if rows is not None and len(infos) == stream.shape[0] != size:
        bare: dict[str, Any] = {"text": None, "words": (), "word_labels": (), "token_labels": {}, "document": None}
        return [replace(infos[row], **bare) for row in rows], np.zeros(size, np.int32)
    times = size // len(infos) if infos and size % len(infos) == 0 else 0
    if not times or (rows is not None and times > 1):
        return [SequenceInfo() for _ in range(size)], np.zeros(size, np.int32)
    return [info for info in infos for _ in range(times)], np.tile(np.arange(times, dtype=np.int32), len(infos))


def _real(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place of everything that is no padding, row by row."""
    if not mask.all():
        row, place = np.nonzero(mask)
        return row, place
    rows, places = np.arange(mask.shape[0])[:, None], np.arange(mask.shape[1])
    return np.broadcast_to(rows, mask.shape).reshape(-1), np.broadcast_to(places, mask.shape).reshape(-1)


def _parents(keys: np.ndarray, last: np.ndarray, row: np.ndarray, place: np.ndarray) -> Any:
    """The token before each in its own hypothesis: beams change rows between steps."""
    import pyarrow as pa

    before = np.where(place == 0, last[row], keys[row, np.maximum(place - 1, 0)])
    return pa.array(before, pa.int64(), mask=before < 0)
