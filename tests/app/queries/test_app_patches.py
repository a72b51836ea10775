"""What an expert of a vision model takes: shares at each place, and the gallery, against a recount of every decision."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import synthetic_app
from pages import opened, part, rows, same

import moescope


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("patches") / "a.duckdb"
    synthetic_app.image_run(path, images=6, side=4)
    return path


def routed(store: Path) -> list[tuple[Any, ...]]:
    """(token, rank, expert, weight, dropped) of router 1, one by one."""
    with moescope.open(store) as opened:
        return opened.rows("select token, rank, expert, weight, dropped from assignments where router = 1 order by token, rank")


def test_places_and_gallery(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    patches, layer = part("queries.expert.patches"), next(x for x in part("parts.pickers").layers(0) if x.router == 1)
    with duckdb.connect(str(store), read_only=True) as con:
        at = {t: (s, y, x) for t, s, y, x in con.execute("select token, sequence, y, x from tokens").fetchall()}
    run, every = {"run": 0, "tokens": len(at), "decisions": 3 * len(at)}, routed(store)
    for expert in range(8):
        here: dict[tuple[int, int], int] = {}
        for token, _, e, _, dropped in every:
            if e == expert and not dropped:
                here[at[token][1:]] = here.get(at[token][1:], 0) + 1
        grid = [(y, x, here.get((y, x), 0), 6, here.get((y, x), 0) / 6) for y in range(4) for x in range(4)]
        same(rows(patches.positions(run, layer, expert)[0]), grid)
        firsts = {t: w for t, rank, e, w, dropped in every if rank == 0 and e == expert and not dropped}
        for by in ("most", "random"):
            found = patches.places(run, layer, expert, by)[0]
            assert len(found) == min(patches.MOST, len(firsts))
            assert [(r.weight, (r.sequence, r.y, r.x)) for r in found.itertuples()] == [
                (pytest.approx(firsts[t]), at[t]) for t in found["token"]
            ]
            if by == "most":
                assert found["weight"].tolist() == pytest.approx(sorted(firsts.values(), reverse=True)[: len(found)])


def test_gallery_outlines_the_patch_and_opens_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, "experts", monkeypatch, run="0", layer="layer 3")
    html = next(h.proto.body for h in page.get("html") if 'class="ms-gallery"' in h.proto.body)
    token, sequence = html.split("token=")[1].split('"')[0], html.split("sequence=")[1].split("&")[0]
    with duckdb.connect(str(store), read_only=True) as con:
        y, x = con.execute("select y, x from tokens where token = ? and sequence = ?", [token, sequence]).fetchone()  # type: ignore[misc]
    assert f"left:{25 * x:.2f}%;top:{25 * y:.2f}%;width:25.00%;height:25.00%" in html
    assert not any("▦" in h.proto.body for h in page.get("html"))
