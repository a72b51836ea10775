"""What a data set is once it is read: words in examples in a data set."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np

from ...errors import InputError
from .media.medium import Medium
from .report import Report

Kind = Literal["text", "image"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Word:
    """A labelled span of `Example.text`: characters start (inclusive) to end (exclusive)."""

    start: int
    end: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Span:
    """A label of a part of `Example.text`, of whatever length: characters start (inclusive) to end (exclusive).

    `kind` names what is labelled (role, entity, topic ...), `value` is the label. Of the spans of one kind each token has the
    one that it overlaps most, so those of other kinds may lie inside each other or across.
    """

    start: int
    end: int
    kind: str
    value: str


@dataclass(frozen=True)
class Example:
    """One sequence to trace: a text or conversation (media beside it or not), an image, or ids that somebody tokenized."""

    source: str  # the file (relative to the data as given) or the hub's name
    row: int  # running number of the record in the source, from 0; skipped records leave gaps
    document: str  # the unit that a bootstrap draws
    text: str | None = None
    image: np.ndarray | None = None  # (H, W) or (H, W, C), uint8
    labels: Mapping[str, str] = field(default_factory=dict)  # of the whole sequence: domain, class, genre, ...
    words: tuple[Word, ...] = ()  # in the order of the text
    input_ids: np.ndarray | None = None  # (T,) integers, vocabulary ids
    media: tuple[Medium, ...] = ()  # pictures, video and sound beside the text, in the order in which it speaks of them
    messages: tuple[Mapping[str, Any], ...] = ()  # of a conversation, which a tokenizer's template makes a text of
    tools: tuple[Any, ...] = ()  # JSON schemas of what it may call
    spans: tuple[Span, ...] = ()  # labels of parts of the text: turns, sentences, phrases, ... joined to tokens by characters
    token_labels: Mapping[str, Sequence[str | None]] = field(default_factory=dict)  # kind: one for each of `input_ids`

    @property
    def kind(self) -> Kind:
        """An image, or a text (pre-tokenized text included)."""
        return "text" if self.image is None else "image"


class Lazy(Sequence[Example], Generic[Key]):
    """Examples made when asked for, one per key; `shapes`, where known, says each image's (H, W[, C])."""

    def __init__(
        self, keys: Sequence[Key], make: Callable[[Key], Example], shapes: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        self.keys, self.make, self.shapes = keys, make, shapes

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Lazy[Key]": ...
    def __getitem__(self, index: int | slice) -> "Example | Lazy[Key]":
        if isinstance(index, slice):
            return Lazy(self.keys[index], self.make, self.shapes and self.shapes[index])
        return self.make(self.keys[index])


@dataclass(frozen=True)
class Dataset:
    """Everything that one `--data` names; `sha256` is over the bytes of its files, whatever the limit."""

    name: str
    sha256: str
    kind: Kind
    examples: Sequence[Example]
    warnings: tuple[str, ...] = ()  # one sentence for each kind of thing that was skipped
    report: Report = field(default_factory=Report, compare=False, repr=False)  # what is left out later

    def __len__(self) -> int:
        return len(self.examples)


@dataclass
class Stream:
    """A data set that is gone through once, and of which nothing is held; what was skipped is known when it is through."""

    name: str
    kind: Kind
    examples: Iterator[Example]
    report: Report


def image_shapes(dataset: Dataset) -> Counter[tuple[int, ...]]:
    """How many images there are of each shape (H, W) or (H, W, C); decodes only what it must."""
    known = getattr(dataset.examples, "shapes", None)
    return Counter(known or (e.image.shape for e in dataset.examples if e.image is not None))


def one_shape(dataset: Dataset) -> tuple[int, ...]:
    """The shape that all images share; raises InputError where there are several, or no images."""
    shapes = image_shapes(dataset)
    if len(shapes) == 1:
        return next(iter(shapes))
    if not shapes:
        raise InputError(f"{dataset.name} holds no images: pass a folder of images or an .npz with `images`.")
    seen = ", ".join(f"{'×'.join(map(str, shape))} ({n})" for shape, n in shapes.most_common(5))
    raise InputError(f"{dataset.name} holds images of {len(shapes)} shapes, {seen}: bring them to one shape first.")
