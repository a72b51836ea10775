"""The one door of all importers: which format a file is of, what is refused, one run for each that comes in."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ...discover import modules
from ...errors import InputError
from ...foreign import doing
from ...store.write.take_back import forget_empty
from .._forms.table_columns import said_in
from .ask import Ask, Item
from .captured import Captured, Counts, Fault, Notes
from .model import Model, read_model
from .reading import Head, head
from .sink import Sink
from .words import Labels, Tokenizer

_ADVICE = re.compile(r"(; | \(or |, or )leave it out by --keep-going\)?")  # which was done
_ORDERS = {"weight": True, "unknown": False}


@dataclass
class Imported:
    """What came in: numbers of runs, their sequences, and sentences on what lacks and what was left out."""

    kind: str
    runs: list[int] = field(default_factory=list)
    sequences: int = 0
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass
class Wanted:
    """What the user says: see `import_captures`."""

    name: str | None = None
    model: str | Path | Model | None = None
    tokenizer: str | Path | None = None
    labels: str | Path | None = None
    order: str | None = None
    experts: int | None = None
    top_k: int | None = None
    layers: int | None = None
    keep_going: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: str | Path | None = None
    step: Callable[[int], object] = lambda read: None
    command: Sequence[str] = ()


def importers() -> dict[str, ModuleType]:
    """Every importer by name; those that accept anything last."""
    found = modules("importers")
    return dict(sorted(found.items(), key=lambda pair: (getattr(pair[1], "LAST", False), pair[0])))


def import_captures(files: Sequence[str | Path], store: str | Path, kind: str | None = None, **wanted: Any) -> Imported:
    """Read what an engine wrote into `store`, as one run (or one for each `run` of a table); gives what came in.

    `kind`: the format, else told by each file. `model`: its configuration (folder, config.json, hub name), or `experts`,
    `top_k` and `layers`. `tokenizer`, `labels`: text of tokens, labels of requests. `order`: "weight" or "unknown", where the
    model's configuration does not tell. `keep_going`: leave out what is refused. `options`: KEY=VALUE of the importer;
    `columns`: a file of a table's columns. InputError in one sentence where something cannot be what was executed; nothing is
    stored then.
    """
    asked = _wanted(wanted)
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("name at least one file to import")
    heads = [head(_there(path)) for path in paths]
    name, module = _importer(kind, heads)
    ask = _ask(asked, name, module)
    ask.files = len(paths)
    flow = _items(module, paths, ask)
    return _stored(flow, store, name, [path.name for path in paths], asked, ask)


def import_items(items: Iterable[Item], store: str | Path, kind: str, ask: Ask, **wanted: Any) -> Imported:
    """The same of sequences that somebody else reads."""
    return _stored(iter(items), store, kind, [kind], _wanted(wanted), ask)


def named(name: str) -> Callable[..., Imported]:
    """`import_captures`, or the importer of one format: `import_vllm(files, store, model=...)`, `import_table(frame, store)`.

    AttributeError where there is none of that name.
    """
    kind = name.removeprefix("import_")
    if kind == "captures":
        return import_captures
    if kind not in importers():
        raise AttributeError(f"module 'moescope' has no attribute {name!r}; importers are: {', '.join(importers())}")

    def read(files: Any, store: str | Path, **wanted: Any) -> Imported:
        if kind == "table" and not _are_files(files):
            return import_frame(files, store, **wanted)
        return import_captures([files] if isinstance(files, str | Path) else files, store, kind, **_optioned(kind, wanted))

    read.__name__, read.__doc__ = name, importers()[kind].__doc__
    return read


def _are_files(given: Any) -> bool:
    each = isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given)
    return isinstance(given, str | Path) or each


def _optioned(kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Keywords that are options of the importer, among them."""
    own = {key: wanted[key] for key in wanted if key in importers()[kind].OPTIONS}
    rest = {key: value for key, value in wanted.items() if key not in own}
    return {**rest, "options": {**own, **rest.get("options", {})}}


def import_frame(frame: Any, store: str | Path, **wanted: Any) -> Imported:
    """A pandas frame, an Arrow table or a dict of columns; the columns are options, as in `import_table(frame, store,
    expert="e")`."""
    asked = _wanted(_optioned("table", wanted))
    module = importers()["table"]
    ask = _ask(asked, "table", module)
    return _stored(module.read_frame(frame, ask), store, "table", [asked.name or "frame"], asked, ask)


def _wanted(said: Mapping[str, Any]) -> Wanted:
    if unknown := sorted(said.keys() - Wanted.__dataclass_fields__.keys()):
        known = ", ".join(Wanted.__dataclass_fields__)
        raise InputError(f"an import has no setting {unknown[0]!r}; it has: {known}")
    return Wanted(**said)


def _there(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"there is no file {path}; name what the engine wrote")
    return path


def _importer(kind: str | None, heads: Sequence[Head]) -> tuple[str, ModuleType]:
    known = importers()
    if kind is not None:
        if kind not in known:
            raise InputError(f"there is no format {kind!r}; there are: {', '.join(known)}")
        return kind, known[kind]
    told = {one.path: next((name for name, module in known.items() if module.accepts(one)), None) for one in heads}
    if (other := next((path for path, name in told.items() if name is None), None)) is not None:
        raise InputError(f"{other} does not say which engine wrote it; say one of: {', '.join(known)}")
    if len(names := sorted({name for name in told.values() if name})) > 1:
        raise InputError(f"these files are of several formats ({', '.join(names)}): import them one by one")
    return names[0], known[names[0]]


def _ask(wanted: Wanted, kind: str, module: ModuleType) -> Ask:
    options = dict(wanted.options)
    if wanted.columns is not None:
        options = {**said_in(Path(wanted.columns)), **options}
    if unknown := sorted(options.keys() - module.OPTIONS.keys()):
        known = ", ".join(module.OPTIONS) or "none"
        raise InputError(f"the importer {kind} has no option {unknown[0]!r}; it has: {known}")
    return Ask(Notes(), _model(wanted), options, wanted.step, wanted.name)


def _model(wanted: Wanted) -> Model | None:
    model = wanted.model
    if isinstance(model, str | Path):
        model = read_model(model)
    facts = (wanted.experts, wanted.top_k, wanted.layers)
    if model is None and any(fact is not None for fact in facts):
        if not all(facts):
            raise InputError("--experts, --top-k and --layers go together: say all three, or --model")
        experts, top_k, layers = (int(fact or 0) for fact in facts)
        model = Model(wanted.name or "a model", experts, top_k, layers, tuple(range(layers)))
    elif model is not None:
        _alike(model, wanted)
    if wanted.order is not None:
        if wanted.order not in _ORDERS:
            raise InputError(f"the order is weight or unknown, not {wanted.order!r}")
        model = replace(model, by_weight=_ORDERS[wanted.order]) if model is not None else None
    return model


def _alike(model: Model, wanted: Wanted) -> None:
    """InputError where a number that is said is not the model's."""
    for name in ("experts", "top_k", "layers"):
        said, own = getattr(wanted, name), getattr(model, name)
        if said is not None and said != own:
            raise InputError(
                f"--{name.replace('_', '-')} {said} was said, and {model.name} has {own}: leave it out, or leave out --model"
            )


def _items(module: ModuleType, paths: Sequence[Path], ask: Ask) -> Iterator[Item]:
    """What a module reads of every file; a fault of a whole file ends that file."""
    for path in paths:
        try:
            with doing(f"reading {path}", InputError):
                yield from module.read(path, ask)
        except Fault as fault:
            yield fault


def _stored(flow: Iterator[Item], store: str | Path, kind: str, files: Sequence[str], wanted: Wanted, ask: Ask) -> Imported:
    done, fresh = Imported(kind), not Path(store).exists()
    sinks: dict[str | None, Sink] = {}
    tokenizer = Tokenizer(wanted.tokenizer) if wanted.tokenizer is not None else None
    labels = Labels(Path(wanted.labels)) if wanted.labels is not None else None

    def sink(run: str | None) -> Sink:
        if run not in sinks:
            name = (wanted.name or files[0]) + (f" {run}" if run else "")
            made = sinks[run] = Sink(store, name, kind, files, ask.notes, wanted.command)
            made.tokenizer, made.labels = tokenizer, labels
        return sinks[run]

    try:
        for item in flow:
            _take(item, sink, ask, wanted.keep_going)
        if not sinks:
            sink(None)
        for one in sinks.values():
            done.runs.append(one.close())
            done.sequences += one.sequences
    except BaseException:
        for one in sinks.values():
            one.discard()
        if fresh:
            forget_empty(Path(store))
        raise
    done.warnings, done.left_out = ask.notes.sentences(), list(ask.notes.left_out)
    return done


def _take(item: Item, sink: Callable[[str | None], Sink], ask: Ask, keep_going: bool) -> None:
    try:
        if isinstance(item, Fault):
            raise item
        model = ask.need("a capture")
        if isinstance(item, Counts):
            sink(None).count(item, model)
        elif isinstance(item, Captured):
            sink(item.run).add(item, model)
    except Fault as fault:
        if not keep_going:
            raise
        ask.notes.left_out.append(_ADVICE.sub("", str(fault)))
