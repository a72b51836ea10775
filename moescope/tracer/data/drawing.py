"""Draw examples one by one and make windows of them, with a place from which that can be gone on with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ...errors import InputError
from ...inputs import Dataset, Digest, Example, Lazy, Stream, one_shape
from ...models.loading import Loaded
from .drawing_notes import Notes
from .windows import Window, windows

_ORDER = (
    "sequences are numbered as they ran, of those that were drawn together the shorter first: source, source_row and part say "
    "the order of the data"
)


@dataclass(frozen=True)
class Asked:
    """What a trace makes of its data; `batch_tokens`: that many in a batch, padding included, not `batch_size` sequences."""

    batch_size: int = 8
    batch_tokens: int | None = None
    max_tokens: int | None = None
    max_length: int | None = None
    generate: int = 0
    seed: int = 0


@dataclass
class Place:
    """How far a data set was drawn: `examples` whole, of the next one `parts` windows."""

    examples: int = 0
    parts: int = 0
    windows: int = 0
    tokens: int = 0
    batches: int = 0
    sha256: str = ""  # of a stream: of those examples
    notes: dict[str, Any] = field(default_factory=dict)


class Drawn:
    """The windows of a data set in its own order, from a place on. InputError where data and model do not fit."""

    def __init__(self, loaded: Loaded, data: Dataset | Stream, asked: Asked, begin: Mapping[str, Any] | None = None) -> None:
        self.loaded, self.data, self.asked = loaded, data, asked
        self.place = Place(**(begin or {}))
        self.notes = Notes(data.report.skip_bad, **self.place.notes)
        self.digest = Digest()
        self.shape: tuple[int, ...] | None = None
        if isinstance(data, Dataset) and data.kind == loaded.reads == "image":
            one_shape(data)

    def __iter__(self) -> Iterator[Window]:
        most = self.asked.max_tokens
        skipped = self.place.parts
        for number, example in () if most is not None and self.place.tokens >= most else self._examples():
            before = self._digested(example)
            for part, window in islice(enumerate(self._windows(number, example)), skipped, None):
                self.notes.add(window)
                tokens, count = self.place.tokens + len(window), self.place.windows + 1
                self.place = replace(self.place, examples=number, parts=part + 1, windows=count, tokens=tokens, sha256=before)
                yield window
                if most is not None and tokens >= most:
                    return
            skipped = 0

    def _digested(self, example: Example) -> str:
        """Count an example of a stream in; gives the digest of those before it."""
        if isinstance(self.data, Dataset):
            return ""
        before = self.digest.hexdigest()
        self.digest.add(example)
        return before

    def _examples(self) -> Iterator[tuple[int, Example]]:
        """Examples with their numbers, without those before the place; of a stream these must be what they were."""
        begin = self.place.examples
        if isinstance(self.data, Dataset):
            for number in range(begin, len(self.data.examples)):
                example = self._made(number) if isinstance(self.data.examples, Lazy) else self.data.examples[number]
                if example is not None:
                    yield number, example
            return
        examples = iter(self.data.examples)
        for example in islice(examples, begin):
            self.digest.add(example)
        if begin and self.digest.hexdigest() != self.place.sha256:
            raise InputError(
                f"the first {begin:,} examples of {self.data.name} are not those that were traced, so that the trace cannot be "
                "gone on with: give the same data, or trace without --resume"
            )
        yield from enumerate(examples, begin)

    def _made(self, number: int) -> Example | None:
        try:
            return self.data.examples[number]  # type: ignore[index]
        except InputError as error:
            self.notes.bad(error)
            return None

    def _windows(self, number: int, example: Example) -> list[Window]:
        one = Dataset(self.data.name, "", example.kind, [example])
        try:
            self._of_one_shape(example)
            return list(
                windows(self.loaded, one, self.asked.max_length, self.asked.seed + number, generate=self.asked.generate > 0)
            )
        except InputError as error:
            self.notes.bad(error)
            return []

    def _of_one_shape(self, example: Example) -> None:
        """InputError for an image of another shape than the first of a stream; of a data set that was asked before."""
        if example.image is None or isinstance(self.data, Dataset):
            return
        self.shape = example.image.shape if self.shape is None else self.shape
        if example.image.shape != self.shape:
            raise InputError(
                f"{example.source}, row {example.row} is {example.image.shape} pixels, but images before it {self.shape}: "
                "bring them to one shape first"
            )

    def left_out(self) -> int:
        """Rows, files and texts that were left out as bad so far."""
        return self.data.report.left_out.total() + self.notes.left_out

    def said(self) -> list[str]:
        """Sentences on what the windows are not; of a stream also on what was passed over."""
        passed_over = () if isinstance(self.data, Dataset) else self.data.report.warnings()
        return [*passed_over, *self.notes.sentences(), *([_ORDER] if self.asked.batch_tokens else [])]
