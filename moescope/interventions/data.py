"""The forwards of a stored run once more: what went into the model, batch by batch, and which stored token every place is.

So an ablation needs nothing but the store for text; for images it needs the data set too. Labels come from the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..inputs import Dataset
from ..models.loading import Loaded
from ..store import Store
from ..weights import home, precision


@dataclass(eq=False)
class Batch:
    """One forward. `scored`, `read`: (rows, places) token keys, -1 for none: the one predicted there, and the one that is read.

    targets: (rows, places) int64, -1 for none. keys: {stack: (T,) token key of every place, -1 for padding}.
    """

    forward: int
    inputs: dict[str, Tensor]
    targets: Tensor
    scored: np.ndarray
    read: np.ndarray
    keys: dict[str, np.ndarray]
    rows: list[int] = field(default_factory=list)


class Batches:
    """The batches of `run`, to be iterated over as often as one likes.

    InputError where the run holds generated tokens, tokens that have no name, or images without the data set they came from.
    """

    def __init__(self, store: Store, run: int, loaded: Loaded, data: Dataset | None = None) -> None:
        self.run, self.loaded = run, loaded
        self._tokens = store.sql(
            "select token, sequence, position, unit, vocab_id, generated from tokens where run = ? order by token", [run]
        ).fetchnumpy()
        self.sequences = store.sql(
            "select sequence, stack, source, source_row, document from sequences where run = ? order by sequence", [run]
        ).df().set_index("sequence")  # fmt: skip
        self._check(store, data)
        self._forwards = _forwards(store, run)
        self._images = {} if data is None else {(e.source, e.row): e for e in data.examples}
        starts = np.searchsorted(self._tokens["sequence"], self.sequences.index.to_numpy())
        self._start = dict(zip(self.sequences.index, starts))
        self.classes: list[str] = []

    def __len__(self) -> int:
        return len(self._forwards)

    def __iter__(self) -> Iterator[Batch]:
        for forward, sequences in self._forwards.items():
            yield self._batch(forward, sequences)

    @property
    def first_token(self) -> int:
        """The run's smallest token key; its keys follow without a gap."""
        return int(self._tokens["token"][0])

    @property
    def document_of(self) -> tuple[np.ndarray, list[str]]:
        """(tokens,) number of the document of every token of the run, and the documents' names."""
        codes, names = self.sequences["document"].factorize()
        place = np.searchsorted(self.sequences.index.to_numpy(), self._tokens["sequence"])
        return codes[place], [str(n) for n in names]

    def _check(self, store: Store, data: Dataset | None) -> None:
        if not len(self._tokens["token"]):
            raise InputError(
                f"run {self.run} of {store.path} holds no tokens: ablate a run that `moescope info` shows as complete"
            )
        if bool(np.asarray(self._tokens["generated"]).any()):
            raise InputError(f"run {self.run} of {store.path} generated tokens; ablate a run without --generate")
        units = set(np.unique(np.asarray(self._tokens["unit"]).astype(str)))
        if "row" in units or bool(
            np.ma.getmaskarray(self._tokens["vocab_id"])[np.asarray(self._tokens["unit"]) == "text"].any()
        ):
            raise InputError(f"run {self.run} of {store.path} was given no token ids, so its inputs cannot be made again")
        if seen := sorted(units & {"image", "video", "audio"}):
            raise InputError(
                f"run {self.run} of {store.path} is of texts with {' and '.join(seen)}, which a store does not hold; ablate a "
                "run of texts alone"
            )
        if "patch" in units and data is None:
            raise InputError(f"run {self.run} of {store.path} is of images, which a store does not hold: say which with --data")

    def _batch(self, forward: int, sequences: Sequence[int]) -> Batch:
        stacks = self.sequences.loc[list(sequences), "stack"]
        if "vision" in set(stacks):
            return self._pictures(forward, list(sequences))
        sides = {stack: [int(s) for s in stacks.index[stacks == stack]] for stack in ("encoder", "decoder")}
        made = {stack: self._padded(rows) for stack, rows in sides.items() if rows}
        prefix = {"encoder": "", "decoder": "decoder_" if sides["encoder"] else ""}
        inputs = {
            prefix[stack] + name: value
            for stack, (ids, mask, _) in made.items()
            for name, value in (("input_ids", ids), ("attention_mask", mask))
        }
        ids, mask, keys = made["decoder" if "decoder" in made else "encoder"]
        real = mask.bool()
        targets = torch.where(real[:, 1:] & real[:, :-1], ids[:, 1:], -1)
        scored = np.where(targets.numpy(force=True) >= 0, keys[:, 1:], -1)
        flat = {stack: k.reshape(-1) for stack, (_, _, k) in made.items()}
        return Batch(forward, inputs, targets, scored, np.where(scored >= 0, keys[:, :-1], -1), flat, sides["decoder"])

    def _padded(self, sequences: list[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        spans = [self._span(s) for s in sequences]
        longest = max(stop - start for start, stop in spans)
        config: Any = self.loaded.model.config
        pad = getattr(self.loaded.tokenizer, "pad_token_id", None) or getattr(config, "pad_token_id", None) or 0
        ids = np.full((len(spans), longest), pad, np.int64)
        keys = np.full((len(spans), longest), -1, np.int64)
        for row, (start, stop) in enumerate(spans):
            ids[row, : stop - start] = self._tokens["vocab_id"][start:stop]
            keys[row, : stop - start] = self._tokens["token"][start:stop]
        device = home(self.loaded.model)
        return torch.from_numpy(ids).to(device), torch.from_numpy((keys >= 0).astype(np.int64)).to(device), keys

    def _span(self, sequence: int) -> tuple[int, int]:
        start = int(self._start[sequence])
        return start, int(np.searchsorted(self._tokens["sequence"], sequence, side="right"))

    def _pictures(self, forward: int, sequences: list[int]) -> Batch:
        places = self.sequences.loc[sequences, ["source", "source_row"]].itertuples(index=False)
        try:
            examples = [self._images[source, int(row)] for source, row in places]
        except KeyError as error:
            raise InputError(
                f"the data set has no image {error.args[0]}, which run {self.run} traced; give the one it traced"
            ) from error
        pixels = torch.from_numpy(np.ascontiguousarray(self.loaded.prepare([e.image for e in examples])))
        keys = np.concatenate([self._tokens["token"][slice(*self._span(s))] for s in sequences]).astype(np.int64)
        first = np.array([[self._tokens["token"][self._span(s)[0]]] for s in sequences], np.int64)
        classes = [[self._class(str(e.labels.get("class", "")))] for e in examples]
        model = self.loaded.model
        inputs = {"pixel_values": pixels.to(home(model), precision(model))}
        return Batch(forward, inputs, torch.tensor(classes).to(home(model)), first, first, {"vision": keys}, sequences)

    def _class(self, label: str) -> int:
        names = self.classes or _class_names(self.loaded)
        if label.isdigit() and label not in names:
            return int(label)
        if label not in names:
            raise InputError(
                f"class {label!r} is none of the model's: give its names in order with --classes, or number the labels"
            )
        return names.index(label)


def _class_names(loaded: Loaded) -> list[str]:
    names = getattr(getattr(loaded.model, "config", None), "id2label", None) or {}
    return [str(names[key]) for key in sorted(names, key=int)]


def _forwards(store: Store, run: int) -> dict[int, list[int]]:
    """{forward: its sequences, in the order of their rows}."""
    rows = store.rows(
        "with first as (select min(router) as router from routers where run = ? group by stack) "
        "select distinct d.forward, t.sequence from decisions d semi join first using (router) join tokens t using (token) "
        "where d.run = ? order by all",
        [run, run],
    )
    found: dict[int, list[int]] = {}
    for forward, sequence in rows:
        found.setdefault(int(forward), []).append(int(sequence))
    return found


def groups(store: Store, batches: Batches, kind: str, most: int = 200) -> tuple[np.ndarray, list[str]]:
    """(tokens of the run,) group of every token under a label kind, -1 for none, and the groups' names.

    Beside the store's labels: `all`, `position` (powers of two), `token` (the `most` commonest); `pos` is read as `upos`.
    InputError for another kind.
    """
    count, first = len(batches._tokens["token"]), batches.first_token
    if kind == "all":
        return np.zeros(count, np.int64), ["all"]
    if kind == "position":
        log = np.floor(np.log2(np.asarray(batches._tokens["position"]).astype(np.int64) + 1)).astype(np.int64)
        return log, [str(2**i - 1) if i == 0 else f"{2**i - 1}-{2 ** (i + 1) - 2}" for i in range(int(log.max()) + 1)]
    label = "any_value(label)" if kind != "token" else "any_value(text)"
    source = "token_text" if kind == "token" else "labels"
    where = "run = ?" if kind == "token" else f"kind = ? and token between {first} and {first + count - 1}"
    rows = store.sql(
        f"select token, {label} as label from {source} where {where} group by token",
        [batches.run if kind == "token" else "upos" if kind == "pos" else kind],
    ).df()
    if rows.empty or rows["label"].isna().all():
        kinds = store.rows(
            "select distinct kind from labels where token between ? and ? order by 1", [first, first + count - 1]
        )
        raise InputError(
            f"run {batches.run} has no labels of kind {kind!r}: it has {', '.join(k for (k,) in kinds) or 'none'}, and always "
            "all, position, token"
        )
    names = list(rows["label"].value_counts().index[:most]) if kind == "token" else sorted(rows["label"].dropna().unique())
    number = {name: i for i, name in enumerate(names)}
    found = np.full(count, -1, np.int64)
    found[rows["token"].to_numpy(np.int64) - first] = rows["label"].map(number).fillna(-1).to_numpy(np.int64)
    return found, [str(n) for n in names]
