"""Who is let in to the dashboard: raw requests and handshakes at a running server, every route that it has, a real browser."""

import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from places import TOKEN

from moescope.cli.show.app import Site, serving

ROOT = Path(__file__).parents[3]
GUARDS = {
    "content-security-policy": "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def port(site: Site) -> int:
    return urlsplit(site.url).port or 0


def asked(site: Site, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of one request whose headers are exactly these, but for a host that is ours."""
    with closing(http.client.HTTPConnection("127.0.0.1", port(site), timeout=60)) as con:
        con.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"host": f"127.0.0.1:{port(site)}"} | headers).items():
            con.putheader(name.replace("_", "-"), value)
        con.endheaders()
        answer = con.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read().decode(errors="replace")


def shaken(site: Site, **headers: str) -> int:
    """The status that answers the opening of a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": key, "sec-websocket-version": "13"}
    lines = [f"{name}: {value}" for name, value in ({"host": f"127.0.0.1:{port(site)}"} | upgrade | headers).items()]
    with socket.create_connection(("127.0.0.1", port(site)), 60) as raw:
        raw.sendall("\r\n".join(["GET /_stcore/stream HTTP/1.1", *lines, "", ""]).encode())
        return int(raw.recv(64).split()[1])


@pytest.fixture(scope="module")
def cookie(site: Site) -> str:
    status, headers, _ = asked(site, f"/?token={TOKEN.replace('+', '%2B')}")
    assert status == 303
    return headers["set-cookie"].split(";")[0]


FOREIGN = [
    *("evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", "[::2]:{port}"),
    *("127.0.0.1:{port}@evil.example", "2130706433:{port}", "127.0.0.1:{port}:{port}", "http://127.0.0.1:{port}"),
]
OWN = ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}"]
ORIGINS = [
    *("null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "https://localhost", "file://"),
    *("127.0.0.1:{port}", "http://localhost:{port}.evil.example", "ftp://127.0.0.1:{port}", "http://127.0.0.1:{port}/x"),
]


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_host_is_refused(host: str, site: Site, cookie: str) -> None:
    host = host.format(port=port(site))
    for path in ("/", "/_stcore/health", "/_stcore/host-config"):
        status, _, text = asked(site, path, host=host, cookie=cookie)
        assert (status, "does not go by the name" in text) in ((403, True), (400, False)), text
    assert shaken(site, host=host, cookie=cookie) in (400, 403)


def test_two_hosts_are_none(site: Site, cookie: str) -> None:
    lines = ["GET / HTTP/1.1", f"host: 127.0.0.1:{port(site)}", "host: evil.example", f"cookie: {cookie}", "", ""]
    with socket.create_connection(("127.0.0.1", port(site)), 60) as raw:
        raw.sendall("\r\n".join(lines).encode())
        assert raw.recv(64).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("host", OWN)
def test_own_names_are_let_in(host: str, site: Site, cookie: str) -> None:
    host = host.format(port=port(site))
    assert asked(site, "/", host=host, cookie=cookie)[0] == 200
    assert shaken(site, host=host, origin=f"http://{host}", cookie=cookie) == 101


@pytest.mark.parametrize("origin", ORIGINS)
def test_foreign_origin_is_refused(origin: str, site: Site, cookie: str) -> None:
    origin = origin.format(port=port(site))
    assert asked(site, "/_stcore/health", origin=origin)[0] == 403
    assert asked(site, "/", origin=origin, cookie=cookie)[0] == 403
    assert shaken(site, origin=origin, cookie=cookie) == 403


@pytest.mark.parametrize("where", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"), [("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe"), ("no-cors", "image")]
)
def test_parts_of_foreign_pages_are_refused(where: str, mode: str, dest: str, site: Site, cookie: str) -> None:
    told = {"sec_fetch_site": where, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    assert asked(site, "/", cookie=cookie, **told)[0] == 403
    link = told | {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert asked(site, "/", cookie=cookie, **link)[0] == 200


def test_without_token_nothing_of_the_server_is_reached(site: Site, small: Path) -> None:
    """Every route of the running app, each with every method that it knows."""
    code = (
        "import json; from moescope.app import serve; routes = serve.app._build_starlette_app().routes; "
        "print(json.dumps([[r.path, sorted(getattr(r, 'methods', None) or ['GET', 'POST'])] for r in routes]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, cwd=small.parent
    )
    routes = [(re.sub(r"\{[^}]*\}", "x", path) or "/", methods) for path, methods in json.loads(out.stdout.splitlines()[-1])]
    assert len(routes) > 10
    pages = [(f"/{view}", ["GET", "POST"]) for view in ("", "sql", "tokens", "static/js/x.js", "favicon.png", "index.html")]
    open_ones = {(path, method) for path, method in (("/_stcore/health", "GET"), ("/_stcore/health", "HEAD"))}
    for path, methods in routes + pages:
        for method in methods:
            status, headers, _ = asked(site, path, method)
            assert (status == 200) == ((path, method) in open_ones), (path, method, status)
            assert status in (200, 403), (path, method, status)
            assert {name: headers.get(name) for name in GUARDS} == GUARDS, (path, method)
    assert shaken(site) == 403


@pytest.mark.parametrize(
    "carried", ["", "moescope-{port}=", "moescope-{port}=x", "moescope-{port}={token}", "moescope-1={pass_}", "x={pass_}"]
)
def test_wrong_cookies_are_none(carried: str, site: Site, cookie: str) -> None:
    wrong = carried.format(port=port(site), token=TOKEN, pass_=cookie.partition("=")[2])
    status, _, text = asked(site, "/", cookie=wrong)
    assert (status, "This dashboard needs its token" in text) == (403, True)
    assert shaken(site, cookie=wrong) == 403
    assert asked(site, "/", cookie=f"{wrong}; {cookie}")[0] == 200


@pytest.mark.parametrize("given", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%ff", "%C3%BC"])
def test_wrong_tokens_are_none(given: str, site: Site) -> None:
    status, headers, text = asked(site, f"/?token={given}")
    assert (status, headers.get("set-cookie"), TOKEN in text) == (403, None, False)


def test_token_becomes_a_cookie_and_leaves_the_address(site: Site, cookie: str) -> None:
    status, headers, _ = asked(site, "/load?run=0&token=open-sesame%2B%2F%3D&domain=domain%3Dlaw&q=%E2%96%81a+b")
    assert (status, headers["location"]) == (303, "/load?run=0&domain=domain%3Dlaw&q=%E2%96%81a+b")
    kept = headers["set-cookie"].split("; ")
    assert kept == [cookie, "Path=/", "HttpOnly", "SameSite=Strict"]
    assert cookie.startswith(f"moescope-{port(site)}=")
    assert TOKEN not in cookie
    assert site.of("load?run=0") == f"{site.url}load?run=0&token=open-sesame%2B%2F%3D"
    shown = "/tokens?token=12&layer=layer+2"  # the page Tokens has a token of its own
    assert [asked(site, shown)[0], asked(site, shown, cookie=cookie)[0]] == [403, 200]
    assert asked(site, f"{shown}&token=open-sesame%2B%2F%3D")[1]["location"] == shown


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example", "///evil.example", "/%09/evil.example", "/%0d%0aset-cookie:x"]
)
def test_token_leads_nowhere_else(path: str, site: Site) -> None:
    status, headers, _ = asked(site, f"{path}?token=open-sesame%2B%2F%3D")
    assert status == 303
    assert re.fullmatch(r"/(?![/\\])[!-~]*", headers["location"]), headers["location"]


def test_answers_may_not_be_framed_nor_guessed(site: Site, cookie: str) -> None:
    for path in ("/", "/sql", "/_stcore/host-config", "/_stcore/health", "/none"):
        _, headers, _ = asked(site, path, cookie=cookie)
        assert {name: headers.get(name) for name in GUARDS} == GUARDS, path


@pytest.mark.slow
def test_no_token_lets_in_but_no_foreign_names(small: Path) -> None:
    with serving(small, token="") as running:
        assert running.of("sql?run=0") == f"{running.url}sql?run=0"
        assert asked(running)[0] == 200
        assert shaken(running) == 101
        assert asked(running, host="evil.example")[0] == shaken(running, host="evil.example") == 403
        assert shaken(running, origin="http://evil.example") == 403


def test_tokens_differ() -> None:
    from moescope.cli._support.address import address

    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    tokens = {address("127.0.0.1", number).token for _ in range(5)}
    assert len(tokens) == 5
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    ("host", "allowed", "names"),
    [
        ("localhost", (), ["localhost:{port}"]),
        ("127.0.0.1", ("Lab.org",), ["127.0.0.1:{port}", "lab.org:443", "lab.org:80", "lab.org:{port}"]),
        ("127.0.0.1", ("localhost:9000", "[::1]:9"), ["127.0.0.1:{port}", "[::1]:9", "localhost:9000"]),
    ],
)  # fmt: skip
def test_other_names(host: str, allowed: tuple[str, ...], names: list[str]) -> None:
    from moescope.cli._support.address import address

    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    assert sorted(address(host, number, None, allowed).names) == sorted(name.format(port=number) for name in names)
