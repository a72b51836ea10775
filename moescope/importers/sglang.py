"""SGLang: routed experts of /generate and of the OpenAI routes, and files of the expert distribution recorder.

Responses (one a line) need --enable-return-routed-experts and `return_routed_experts` in each request: base64 of int32 without
a header, all hidden layers. A recorder's file in mode per_token has ids and places of every forwarded token, of which sequences
are put together; modes per_pass and stat hold counts. Physical experts become logical ones by the file's last map.
"""

from collections.abc import Iterator
from pathlib import Path

from ._core.ask import Ask, Item
from ._core.captured import Captured
from ._core.model import Model
from ._core.payload import raw
from ._core.planes import alignment, routed_planes
from ._core.reading import Head, Line, lines
from ._forms.responses import Output, captured, numbers_of
from ._forms.sglang_recorder import recorded
from ._forms.torch_save import looks_saved

OPTIONS = {"prompt_start": "the token at which rows begin, where responses do not say it (routed_experts_start_len)"}


def accepts(head: Head) -> bool:
    """Responses with SGLang's fields, and what torch saved for its recorder."""
    if head.start[:2] == b"PK" and head.path.suffix in (".pt", ".pth"):
        return looks_saved(head.path) and not head.path.name.startswith("router_state")
    records = [r.get("response", r) for r in head.records]
    return any(isinstance(r, dict) and ("meta_info" in r or _extended(r)) for r in records)


def _extended(record: dict[str, object]) -> bool:
    choices = record.get("choices")
    return "sgl_ext" in record or (isinstance(choices, list) and any(isinstance(c, dict) and "sgl_ext" in c for c in choices))


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every answer, or what the recorder kept."""
    if looks_saved(path):
        yield from recorded(path, ask)
        ask.step(path.stat().st_size)
        return
    model = ask.need("a response of SGLang")
    found = (item for line in lines(path, ask.step) for item in answers(line, ask, model, path))
    yield from alignment(found, ask.whole("prompt_start"), ask.notes)


def answers(line: Line, ask: Ask, model: Model, path: Path) -> Iterator[Item]:
    """The sequences of one response."""
    return captured(line, lambda one: _captured(one, ask, model, path, line.number))


def _captured(one: Output, ask: Ask, model: Model, path: Path, number: int) -> Captured | None:
    ask.notes.total += 1
    if one.payload is None:
        ask.notes.count(
            "{n} of {total} responses have no routed experts (each request has to say return_routed_experts): left out"
        )
        return None
    what = f"{one.where}: routed_experts"
    if isinstance(one.payload, str | bytes):
        ids = raw(one.payload, one.kind or "int32", model.layers, model.top_k, what)
    else:
        ids, _ = numbers_of(one.payload, what)
    ids = routed_planes(ids, model, one.where, ask.notes)
    return Captured(
        one.where, path.name, number - 1 if number else 0, ids, one.prompt, one.prompt + one.answer, one.start or 0,
        one.request, one.tokens,
    )  # fmt: skip
