"""What a page says in words, apart from the data's own: and what no page may say."""

import json
import re
from typing import Any

NOUNS = [
    "token", "document", "expert", "sequence", "row", "column", "layer", "router", "step", "decision", "assignment", "set",
    "example", "forward", "path", "dimension", "choice", "label", "group", "batch", "run", "map", "sample", "place", "model",
    "text", "image", "value", "cell", "difference",
]  # fmt: skip
WRONG = [
    (re.compile(r"(?<![\w·.])[+-]?(nan|NaN|NaT|None|inf|<NA>)(?![\w·])"), "a missing number as the program calls it"),
    (re.compile(rf"(?<![\w.,–-])1 ({'|'.join(NOUNS)})s\b"), "one of several"),
    (re.compile(r"\[\s*[,;]|\(\s*\)|%\s*%|\b0 of 0\b"), "an empty piece"),
]


def faults(test: Any) -> list[tuple[str, str]]:
    """(what is wrong, where) in everything that a page of AppTest says."""
    found = []
    for text in texts(test):
        for pattern, wrong in WRONG:
            found += [(wrong, text[max(hit.start() - 40, 0) : hit.end() + 40]) for hit in pattern.finditer(text)]
    return found


def texts(test: Any) -> list[str]:
    """Its own HTML without tags and without tokens of the data, captions, titles of pictures."""
    said = [_plain(h.proto.body) for h in test.get("html") if "ms-context" not in h.proto.body]
    for kind in ("caption", "markdown", "warning", "info", "success", "error", "header", "subheader"):
        said += [str(m.value) for m in getattr(test, kind)]
    for part in test.get("bidi_component"):
        data = json.loads(part.proto.json or "{}")
        said += [str(data[key]) for key in ("title", "subtitle") if data.get(key)]
    for chart in test.get("vega_lite_chart"):
        said.append(_titles(json.loads(chart.proto.spec or "{}").get("title")))
    for box in [*test.selectbox, *test.multiselect]:
        said.append(box.label)
    return [text for text in said if text.strip()]


def _plain(body: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", body, flags=re.S))


def _titles(title: Any) -> str:
    if not isinstance(title, dict):
        return str(title or "")
    return f"{title.get('text', '')} {title.get('subtitle', '')}"
