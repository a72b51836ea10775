"""What stands before a server of S3 that lets all do all: it denies requests without a key, and writes of one that may read."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

READER = "reader"  # the access key that may only read
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class Gate(BaseHTTPRequestHandler):
    """Requests as they come, where they are allowed."""

    protocol_version = "HTTP/1.1"
    behind = 0

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = self.headers.get("Authorization", "")
        if not signed or (f"={READER}/" in signed.replace(" ", "") and self.command in ("PUT", "POST", "DELETE")):
            return self._say(403, {"Content-Type": "application/xml"}, DENIED)
        link = HTTPConnection("127.0.0.1", self.behind, timeout=60)
        link.request(self.command, self.path, body, dict(self.headers))
        answer = link.getresponse()
        return self._say(answer.status, dict(answer.getheaders()), answer.read())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        own = {name: value for name, value in headers.items() if name.lower() not in ("transfer-encoding", "connection")}
        own = own if self.command == "HEAD" else own | {"Content-Length": str(len(body))}
        for name, value in own.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def gate(behind: int) -> Iterator[int]:
    """The port of one before the port of a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Before", (Gate,), {"behind": behind}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
