"""What stands before and around the pages: the browser's files, limits of queries, sampling of large runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
import synthetic_app

from moescope.app.queries import limits, sampling
from moescope.app.server import asset_cache


async def nobody(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asked(path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    answer = asset_cache.AssetCache(nobody, frozenset({"tokens"}))(scope, nobody, send)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as other:  # playwright's event loop may run in this thread
        other.submit(asyncio.run, answer).result()  # type: ignore[arg-type]
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, sent[1]["body"]


def test_front_names_the_parts_of_charts_and_serves_them() -> None:
    for page in ("/", "/tokens"):
        status, headers, body = asked(page)
        assert (status, headers["cache-control"]) == (200, "no-cache")
        assert b"<title>moescope</title>" in body
    names = [part.split(b'"')[0].decode() for part in body.split(b'modulepreload" crossorigin href="./')[1:]]
    assert len(names) == len(set(names)) > 80
    assert [part for part in asset_cache.FIRST if not any(f"/{part}." in name for name in names)] == []
    for name in names:
        status, headers, body = asked(f"/{name}")
        assert (status, headers["content-length"]) == (200, str(len(body))), name
        assert "javascript" in headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/static/../../../../etc/passwd", "/static/js/none.js", "/_stcore/health", "/static/", "/other"]
)
def test_front_hands_on_what_it_does_not_know(path: str) -> None:
    assert asked(path)[0] == 404
    assert asked("/", "POST")[0] == 404


def test_long_query_is_interrupted() -> None:
    with duckdb.connect() as con:
        with pytest.raises(duckdb.InterruptException), limits.limited(con, 0.05):
            con.execute("select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3")
        with limits.limited(con, 60):
            assert con.execute("select 1").fetchall() == [(1,)]


def test_large_runs_are_counted_in_part(tmp_path: Path) -> None:
    synthetic_app.text_run(tmp_path / "x.duckdb", "x", documents=6)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as con:
        tokens = con.execute("select tokens from runs").fetchone()[0]  # type: ignore[index]
        run = {"run": 0, "tokens": tokens, "decisions": sampling.EXACT + 1}
        assert sampling.filter_sql(run, 2 * tokens, 2) == ("", 1.0)
        assert sampling.filter_sql(run | {"decisions": 1000}, 2, 2) == ("", 1.0)
        sql, kept = sampling.filter_sql(run, 2 * tokens // 3, 2)
        part, every = con.execute(f"select count(*) filter (true{sql}), count(*) from assignments a").fetchone()  # type: ignore[misc]
        assert kept == pytest.approx(1 / 3, abs=0.01)
        assert part / every == pytest.approx(kept, abs=0.2)
        found = con.execute(
            f"select distinct t.sequence from assignments a join tokens t using (token) where true{sql}"
        ).fetchall()
        whole = con.execute("select count(*) from tokens where sequence in (select unnest(?))", [[s for (s,) in found]])
        assert part == whole.fetchone()[0] * 6 * 2  # type: ignore[index]
