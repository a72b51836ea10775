"""Pages as files that need no server: every page, what is on them against SQL, hostile text, links with all of their state."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
import synthetic_app
from browser import VIEWS
from pages import opened, part
from streamlit.testing.v1 import AppTest

import moescope
from moescope.errors import InputError, StoreError
from moescope.store import RunWriter


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("still")
    RunWriter.create(folder / "empty.duckdb", synthetic_app.head("x", {"decoder": 1}, 4, 2, "mixtral")).discard()
    made = {"demo": synthetic_app.demo(folder / "demo.duckdb"), "hostile": synthetic_app.hostile(folder / "hostile.duckdb")}
    return made | {"empty": folder / "empty.duckdb"}


def still(store: Path, page: str, monkeypatch: pytest.MonkeyPatch, **query: str) -> str:
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    return part("still.drawn").drawn(page, query)  # type: ignore[no-any-return]


def parts(page: str) -> list[dict[str, Any]]:
    """What its components are given."""
    found = re.search(r'<script type="application/json" id="parts">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1]) if found else []


def sound(page: str) -> None:
    """One document, our script only, nothing that leads elsewhere."""
    assert (page.startswith("<!doctype html>"), page.count("</html>")) == (True, 1)
    assert set(re.findall(r"<script[^>]*>", page)) <= {'<script type="application/json" id="parts">', "<script>"}
    assert "default-src 'none'" in page
    assert not re.search(r"<(a|link|iframe|object|embed|form|base)\b", page.partition("<body>")[2].partition("<script>")[0])
    assert not re.search(r"<[^>]*\son\w+=", page.partition("<body>")[2].partition("<script")[0])
    assert page.count("<div") == page.count("</div>")


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_every_page_is_a_file(view: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    page = still(stores["demo"], view, monkeypatch, run="0")
    sound(page)
    assert re.search(r"<title>[^<]+ · run 0: [^<]+ · n = [\d,]+ tokens, [\d,]+ decisions · demo\.duckdb</title>", page)


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("view", ["runs", "tokens", "experts"])
def test_hostile_text_stays_text_in_a_file(view: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    page = still(stores["hostile"], view, monkeypatch)
    sound(page)
    assert "\x00" not in page


def test_the_load_of_a_file_is_that_of_the_store(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    page = still(stores["demo"], "load", monkeypatch, run="1")
    data = next(one for one in parts(page) if one["name"] == "heat_map")["data"]
    shown = np.frombuffer(base64.b64decode(data["values"][1]), f"<{data['values'][0]}").reshape(len(data["y"]), len(data["x"]))
    with moescope.open(stores["demo"]) as store:
        rows = store.rows(
            "select r.layer, a.expert, count(*) / sum(count(*)) over (partition by r.router) from assignments a "
            "join routers r using (router) where r.run = 1 and not a.dropped group by r.router, r.layer, a.expert"
        )
    layers, experts = data["keys"][1], data["keys"][0]
    assert {(layers[i], experts[j]): shown[i, j] for i, j in np.argwhere(shown > 0)} == pytest.approx(
        {(layer, expert): share for layer, expert, share in rows}, rel=1e-5
    )
    assert (data["click"], "click" in data["subtitle"]) == (False, False)  # nothing is there to be opened


def test_a_table_of_a_file_has_the_rows_of_the_store(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    page = still(stores["demo"], "runs", monkeypatch)
    table = re.findall(r"<tr>(.*?)</tr>", page.partition('<table class="frame">')[2].partition("</table>")[0])
    names, rows = ([re.findall(r">([^<]*)</t[hd]>", row) for row in some] for some in (table[:1], table[1:]))
    with moescope.open(stores["demo"]) as store:
        counted = store.rows("select run, (select count(*) from tokens t where t.run = r.run) from runs r order by run desc")
    place = names[0].index("tokens")
    assert [(int(row[0]), int(row[place].replace(",", ""))) for row in rows] == counted


@pytest.mark.parametrize(
    ("store", "page", "error", "said"),
    [
        ("demo", "nothing", InputError, "the dashboard has no page 'nothing'; it has runs, tokens"),
        ("missing", "load", StoreError, "the page load cannot be shown: The store .* is not there"),
    ],
)
def test_a_page_that_cannot_be_shown_is_no_file(
    store: str, page: str, error: Any, said: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        still(stores.get(store, tmp_path / "none.duckdb"), page, monkeypatch)


def test_an_empty_store_says_what_to_do(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "moescope trace MODEL" in still(stores["empty"], "load", monkeypatch)


STATES = {  # page, what is in its URL, and what a link of it holds though it is at its default
    ("compare", "run=0"): {"run": "0", "with": "1", "layer": "layer 3"},
    ("compare", "run=1"): {"run": "1", "with": "0"},
    ("runs", ""): {"run": "3"},
    ("load", "run=0"): {"run": "0", "value": "share", "split": "everything"},
    ("tokens", "layer=layer+2&run=0"): {"run": "0", "layer": "layer 2", "by": "first", "numbers": "0", "sequence": "0"},
    ("experts", "expert=3&run=0"): {"run": "0", "expert": "3", "more": "labels"},
}


@pytest.mark.parametrize(("page", "query"), STATES)
def test_a_link_holds_what_is_at_its_default(
    page: str, query: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = opened(stores["demo"], page, monkeypatch, **dict(parse_qsl(query)))
    held = {key: part("url_state")._text(value) for key, value in test.session_state["chosen"].items()}
    wanted = STATES[page, query]
    assert {key: held.get(key) for key in wanted} == wanted
    again = opened(stores["demo"], page, monkeypatch, **{key: value for key, value in held.items() if value})
    assert {key: part("url_state")._text(value) for key, value in again.session_state["chosen"].items()} == held


def test_what_a_file_says_of_itself(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    test = opened(stores["demo"], "experts", monkeypatch, layer="layer 2", expert="3", run="0")
    with moescope.open(stores["demo"]) as store:
        tokens, decisions = store.rows(
            "select (select count(*) from tokens where run = 0), count(*) from decisions where run = 0"
        )[0]
    said = test.session_state["signature"]
    assert said.startswith("run 0: ")
    assert said.endswith(f" · layer 2 · expert 3 · n = {tokens:,} tokens, {decisions:,} decisions · demo.duckdb")


NAMES = {
    "": "moescope-demo-run-3-load.png",
    "layer=layer 2": "moescope-demo-run-3-layer-2-load.png",
    "layer=layer 2&expert=3": "moescope-demo-run-3-layer-2-expert-3-load.png",
    "layer=../../<b>": "moescope-demo-run-3-..-..-b--load.png",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("state", NAMES)
def test_the_name_of_a_file_says_what_is_in_it(state: str, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(stores["demo"]))

    def named(query: str) -> None:
        from urllib.parse import parse_qsl

        import streamlit as st

        from moescope.app.parts import signed

        st.session_state["chosen"] = dict(parse_qsl(query))
        st.text(signed.file_name("load", "png"))

    test = AppTest.from_function(named, args=(state,), default_timeout=60).run()
    assert [text.value for text in test.text] == [NAMES[state]]
