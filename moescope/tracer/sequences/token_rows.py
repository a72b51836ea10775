"""Name every row: which token of which sequence it is, and which rows are padding. Runs on the writing thread."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...store import RunWriter
from .generating import stops
from .image_patches import UNITS, in_text, patches, sizes
from .named import Named
from .naming import Sequences, among
from .pictures import kept_pictures
from .requests import OfRequests
from .sequence_info import SequenceInfo, infos_of, made, told
from .streams import Stream
from .told_pieces import told_or_placed


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
        if isinstance(named, OfRequests):
            self._unrun(named)
        ids = arrays.get("ids")
        if named.live.said is not stream.infos and named.packed is None:
            named.live.tell(stream.infos, infos_of(stream, stream.shape[0])[0])
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
        first = named.first_begun()
        keys = np.arange(first, first + size)
        stream.packed = named.packed
        infos, beams = infos_of(stream, size)
        infos = [SequenceInfo(source=name) for name in named.names] or infos
        bare = self.writer.document
        self.writer.add(
            "sequences",
            {
                "sequence": keys,
                "source": [i.source for i in infos],
                "source_row": np.array([i.row for i in infos], np.int64),
                "part": np.array([i.part for i in infos], np.int32),
                "beam": beams,
                "document": [i.document if i.document is not None else bare(first + n) for n, i in enumerate(infos)],
                "stack": stream.stack,
                "domain": [i.labels.get("domain") for i in infos],
                "class": [i.labels.get("class") for i in infos],
                "text": [i.text for i in infos],
                "tokens": named.begun,
                **sizes(stream, arrays),
            },
        )
        if self._pictures > 0 and any(info.media for info in infos):
            shown = kept_pictures(
                [(int(key), info) for key, info, beam in zip(keys, infos, beams) if beam == 0], self._pictures
            )
            self._pictures -= len(shown["file"])
            self.writer.add("pictures", shown)
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
        self._label(made(named, row, place, token, None if ids is None else ids[row, place]))
        if named.live.reordered:
            columns["parent"] = _parents(keys, named.live.last, row, place)
        self.writer.add("tokens", columns)
        return keys

    def _unrun(self, named: OfRequests) -> None:
        """Tokens of requests that were run as those of others, which alone have their decisions, or that nobody saw."""
        for owner, piece in named.unrun:
            vocab = np.array(piece.missing, np.int64)
            places = np.arange(piece.past - len(vocab), piece.past)
            token = self.writer.take("token", len(vocab)) + np.arange(len(vocab))
            owner.keys[places[0] : piece.past] = token.tolist()
            columns = {"token": token, "position": places, "vocab_id": vocab, "special": among(vocab, self.special)}
            more = {"generated": places >= piece.prompt, "sequence": np.full(len(vocab), owner.sequence), "unit": "text"}
            self.writer.add("tokens", columns | more)
            self._vocab(vocab)

    def _pictured(
        self, stream: Stream, named: Named, columns: dict[str, Any], ids: Any, arrays: Mapping[str, np.ndarray],
        row: np.ndarray, place: np.ndarray,
    ) -> dict[str, Any]:  # fmt: skip
        """Columns of tokens of which some are pieces of a picture."""
        cells = in_text(stream.media, stream.merge, ids, arrays) if stream.media or stream.facts else None
        found = told_or_placed(cells, named, row, place)
        if found is None:
            return {}
        import pyarrow as pa

        unit, frame, y, x = found
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
        words, labels = told(stream, named, row, place, token)
        self._label(labels)
        import pyarrow as pa

        return {"word": pa.array(words, pa.uint32())} if any(word is not None for word in words) else {}

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
