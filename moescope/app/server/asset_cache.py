"""The browser's files from memory, and the first page's parts asked for at once instead of one after the other.

Streamlit's own files are some seventy on the first page. Its server reads each from the disk in pieces through threads, and
the browser learns of the widgets' parts only when a page has sent the first of them.
"""

import mimetypes
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Any

import streamlit

STATIC = Path(streamlit.__file__).parent / "static"
FIRST = ("Html", "Selectbox", "BidiComponent")  # what every page shows, by the names of its parts
LATER = (
    "ArrowVegaLiteChart",
    "DataFrame",
    "TextInput",
    "Checkbox",
    "NumberInput",
    "ButtonGroup",
)  # fetched while the first page is looked at
KEEP = b"public, immutable, max-age=31536000"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_IMPORT = re.compile(r"""(?:from|import)\s*["']\./([\w.-]+\.js)["']""")
_LINKED = re.compile(r'"\./(static/[^"]+)"')


class AssetCache:
    """ASGI middleware: answers for Streamlit's static files and for pages, hands everything else on."""

    def __init__(self, app: App, pages: frozenset[str] = frozenset()) -> None:
        self.app, self.pages = app, {"/", *(f"/{page}" for page in pages)}
        self.files = {f"/{p.relative_to(STATIC).as_posix()}": p for p in STATIC.rglob("*") if p.is_file()}
        self.kept: dict[str, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
        elif path.startswith("/static/") and path in self.files:
            await _answer(send, self.file(path), mimetypes.guess_type(path)[0] or "application/octet-stream", KEEP)
        elif path in self.pages:
            await _answer(send, self.index, "text/html; charset=utf-8", b"no-cache")
        else:
            await self.app(scope, receive, send)

    def file(self, path: str) -> bytes:
        """A static file, read once."""
        if path not in self.kept:
            self.kept[path] = self.files[path].read_bytes()
        return self.kept[path]

    @cached_property
    def index(self) -> bytes:
        """Streamlit's page, naming also the parts that our pages need first."""
        html = (STATIC / "index.html").read_text()
        known = set(_LINKED.findall(html))
        first, later = (dict.fromkeys(f"static/js/{name}" for name in self.parts(names)) for names in (FIRST, LATER))
        links = "".join(f'<link rel="modulepreload" crossorigin href="./{name}">\n' for name in first if name not in known)
        rest = (name for name in later if name not in known and name not in first)
        links += "".join(f'<link rel="prefetch" as="script" crossorigin href="./{name}">\n' for name in rest)
        for name in known:
            self.file(f"/{name}")
        html = html.replace("<title>Streamlit</title>", "<title>moescope</title>")
        return html.replace("</head>", links + "</head>").encode()

    def parts(self, names: tuple[str, ...]) -> list[str]:
        """Script files of the parts so named with all that they import; none where Streamlit names them otherwise."""
        found: dict[str, None] = {}
        todo = [p.name for name in names for p in sorted((STATIC / "static" / "js").glob(f"{name}.*.js"))]
        while todo:
            name = todo.pop()
            if name not in found and f"/static/js/{name}" in self.files:
                found[name] = None
                todo += _IMPORT.findall(self.file(f"/static/js/{name}").decode(errors="replace"))
        return list(found)


async def _answer(send: Send, body: bytes, kind: str, cache: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", cache)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
