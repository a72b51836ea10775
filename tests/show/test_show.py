"""Pictures for notebooks: their numbers against a recount of every decision, what they refuse, what they are as files."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import synthetic_app
from pages import rows, same
from recounted import EXPERTS, ROUTERS, Decision, Truth, ran

import moescope
from moescope import show
from moescope.errors import InputError, StoreError
from moescope.store import RunWriter

TRUTH, NAMES = Truth(), ("tokens", "route", "load", "experts", "flow")


def told(picture: show.Picture) -> dict[str, Any]:
    """What the page of a picture hands to its first component."""
    found = re.search(r'<script type="application/json" id="parts">(.*?)</script>', picture.to_html(), re.DOTALL)
    assert found
    return json.loads(found[1])[0]["data"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_tokens_are_the_decisions_of_their_layer(recounted_store: Path, layer: int) -> None:
    sequence = 2 * 3 + 1  # of run 0, decoder
    picture = show.tokens(recounted_store, sequence, layer)
    here = [d for d in TRUTH.of(0, stack="decoder") if d.of.sequence == sequence and d.layer == layer]
    expected = [
        (d.of.token, d.of.position, d.of.text, [e for e, _, _ in d.chosen], [w for _, w, _ in d.chosen],
         [g for _, _, g in d.chosen], d.entropy, d.margin, f"upos {d.of.upos}") for d in here
    ]  # fmt: skip
    same(rows(picture.frame), expected)
    data = told(picture)
    assert [one["name"] for one in data["layers"]] == ["decoder 0", "decoder 1", "decoder 2"]
    for number, one in enumerate(data["layers"]):
        there = [d for d in TRUTH.of(0, stack="decoder") if d.of.sequence == sequence and d.layer == number]
        assert one["experts"] == [[e for e, _, _ in d.chosen] for d in there]
        assert one["weights"] == [[w for _, w, _ in d.chosen] for d in there]
        assert one["dropped"] == [[g for _, _, g in d.chosen] for d in there]
        assert one["sure"] == [[d.entropy, d.margin] for d in there]
        counted = Counter(f"expert {d.first}" for d in there)
        assert {row["expert"]: row["n"] for row in one["legend"]} == counted
    assert (data["at"], f"n = {len(here)} tokens" in picture.words, "decoder " + str(layer) in picture.words) == (
        layer,
        True,
        True,
    )


def test_a_part_of_a_long_sequence_says_which(recounted_store: Path) -> None:
    picture = show.tokens(recounted_store, 7, 1, begin=3, most=5)
    assert picture.frame["position"].tolist() == [3, 4, 5, 6, 7]
    assert "n = 5 tokens (3 to 7 of 22)" in picture.words


def test_the_route_of_a_token(recounted_store: Path) -> None:
    here = [d for d in TRUTH.of(0, stack="decoder") if d.of.sequence == 7 and d.of.position == 4]
    token = here[0].of.token
    for picture in (show.route(recounted_store, token), show.route(recounted_store, sequence=7, position=4)):
        expected = [[f"decoder {d.layer}", EXPERTS, [list(c) for c in d.chosen], d.entropy, d.margin] for d in here]
        assert told(picture)["rows"] == expected
        assert [(r[0], r[1]) for r in rows(picture.frame, "layer", "expert")] == [
            (d.layer, e) for d in here for e, _, _ in d.chosen
        ]


def counted_in(d: Decision, counted: str) -> list[int]:
    """Experts of a decision: those that ran, or all that were asked for."""
    return d.ran if counted == "ran" else [e for e, _, _ in d.chosen]


@pytest.mark.parametrize(("run", "counted"), [(0, "asked"), (1, "asked"), (1, "ran")])
def test_load_is_in_times_of_even(recounted_store: Path, run: int, counted: str) -> None:
    """Of what was asked for, unless what ran is asked: the runs dropped some."""
    picture = show.load(recounted_store, run, counted=None if counted == "asked" else counted)
    expected = []
    for router, stack, layer, _ in sorted(ROUTERS, key=lambda r: (r[1], r[2])):
        here = TRUTH.of(run, router + len(ROUTERS) * run)
        for e in range(EXPERTS):
            asked = sum(x == e for d in here for x, _, _ in d.chosen)
            mine = [counted_in(d, counted) for d in here]
            share = sum(e in some for some in mine) / sum(map(len, mine))
            number = router + len(ROUTERS) * run
            expected.append((stack, layer, number, e, share * EXPERTS, share, asked, ran(here, e), asked - ran(here, e)))
    same(rows(picture.frame.drop(columns="group")), expected)
    assert told(picture)["span"] == [0.0, 1.0, 2.0]  # the same for every model
    assert f"n = {sum(ran(TRUTH.of(run, r + len(ROUTERS) * run)) for r, *_ in ROUTERS):,} assignments that ran" in picture.words


def test_cards_of_experts(recounted_store: Path) -> None:
    """What else they say is counted again in tests of the page, which has the same ones."""
    picture, here = show.experts(recounted_store, "decoder 1", run=0), TRUTH.of(0, 2)
    for row in picture.frame.to_dict("records"):
        e = row["expert"]
        asked = sum(x == e for d in here for x, _, _ in d.chosen)
        assert (row["assignments"], row["dropped"]) == (ran(here, e), asked - ran(here, e))
        assert (row["load"], row["demand"]) == (pytest.approx(ran(here, e) / ran(here)), pytest.approx(asked / 2 / len(here)))


@pytest.mark.parametrize("counted", [None, "asked", "ran"])
def test_flow_counts_first_choices(recounted_store: Path, counted: str | None) -> None:
    picture = show.flow(recounted_store, "decoder 0", run=0, counted=counted)
    by = {(d.of.token, d.layer): d.chosen[0] for d in TRUTH.of(0, stack="decoder")}
    expected: Counter[tuple[int, ...]] = Counter()
    for (token, layer), (expert, _, gone) in by.items():
        after = by.get((token, layer + 1))
        if after and (counted != "ran" or not (gone or after[2])):
            expected[1 + layer, expert, 2 + layer, after[0]] += 1
    found = {(r[0], r[1], r[2], r[3]): r[4] for r in rows(picture.frame, "layer", "expert", "next_layer", "next_expert", "n")}
    assert found == expected


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("tokens", {"run": 9}, "there is no run 9 in .*; it has runs 0, 1"),
    ("tokens", {"sequence": 999}, "run 1 of .* has no sequence 999; its sequences are 24 to 47"),
    ("tokens", {"sequence": 30, "run": 0}, "run 0 of .* has no sequence 30; its sequences are 0 to 23"),
    ("tokens", {"sequence": True}, "sequence is a whole number from 0 on, not True"),
    ("tokens", {"sequence": -1}, "sequence is a whole number from 0 on, not -1"),
    ("tokens", {"layer": 9}, "run 1 has no layer '9'; name one of: 'encoder 0'"),
    ("tokens", {"layer": "<b>"}, "run 1 has no layer '<b>'"),
    ("tokens", {"colour": "red"}, "colour is one of first, expert, entropy, margin, not 'red'"),
    ("tokens", {"colour": "expert", "expert": 4}, "encoder 0 has no expert 4; its experts are 0 to 3"),
    ("tokens", {"theme": "pink"}, "theme is one of auto, light, dark, not 'pink'"),
    ("route", {"token": 10**9}, "run 1 has no token 1000000000; its tokens are"),
    ("route", {"sequence": 1, "position": 99}, "sequence 1 has no token at position 99; it has"),
    ("route", {"token": 0, "forward": 4000}, "token 0 was not looked at in forward 4000"),
    ("load", {"run": "0"}, "run is a whole number from 0 on, not '0'"),
    ("experts", {"layer": 0}, "run 1 has 2 routers in layer 0; name one of: 'decoder 0', 'encoder 0'"),
    ("flow", {"layer": "decoder 2"}, "no layer follows decoder 2 in its stack"),
    ("flow", {"layer": "decoder 0", "follow": 7}, "decoder 0 has no expert 7"),
]


@pytest.mark.parametrize(("name", "asked", "said"), REFUSED, ids=lambda v: v if isinstance(v, str) and v.isalpha() else "")
def test_what_is_not_there_is_said_in_one_sentence(recounted_store: Path, name: str, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        getattr(show, name)(recounted_store, **asked)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_stores_without_an_answer(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        getattr(show, name)(tmp_path / "none.duckdb")
    with pytest.raises(InputError, match=r"a store is a path or what moescope\.open gives, not int"):
        getattr(show, name)(3)
    empty = tmp_path / "empty.duckdb"
    RunWriter.create(empty, synthetic_app.head("x", {"decoder": 1}, 4, 2, "mixtral")).discard()
    with pytest.raises(InputError, match="has no run of a model with routers"):
        getattr(show, name)(empty)


@pytest.mark.parametrize("name", ["tokens", "load"])
def test_a_run_that_is_still_being_traced(tmp_path: Path, name: str) -> None:
    store = tmp_path / "growing.duckdb"
    synthetic_app.text_run(store, "growing", documents=2, finish=False)
    assert len(getattr(show, name)(store).frame)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts that would break a page, one after the other."""
    return synthetic_app.hostile(tmp_path_factory.mktemp("hostile") / "hostile.duckdb")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_is_text_in_every_form(other: Path, name: str, tmp_path: Path) -> None:
    picture = getattr(show, name)(other)
    page, drawing = picture.to_html(), picture.to_svg()
    assert ("\x00" not in page + drawing, page.count("</html>")) == (True, 1)
    assert re.findall(r"<script[^>]*>", page) == ['<script type="application/json" id="parts">', "<script>"]
    assert not re.search(r"<(img|style)[^>]*(onerror|display:none)", page)
    assert "default-src 'none'" in page  # whatever is in it, nothing is fetched and nothing but our script runs
    allowed = {
        "svg",
        "rect",
        "text",
        "g",
        "path",
        "image",
        "defs",
        "pattern",
        "tspan",
        "line",
        "linearGradient",
        "stop",
        "clipPath",
    }
    assert {e.tag.rpartition("}")[2] for e in ElementTree.fromstring(drawing).iter()} <= allowed


@pytest.mark.parametrize("name", ["tokens", "load"])
def test_a_notebook_is_given_it_live_and_still(recounted_store: Path, name: str) -> None:
    picture = getattr(show, name)(recounted_store)
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert ("<iframe" in bundle["text/html"], bundle["image/png"] in bundle["text/html"]) == (True, True)
    show.live(False)
    try:
        assert set(picture._repr_mimebundle_()) == {"image/png", "text/plain"}
        assert picture._repr_html_() is None
    finally:
        show.live(True)


@pytest.mark.parametrize("kind", ["html", "png", "svg", "pdf"])
def test_saved_as_its_name_says(recounted_store: Path, tmp_path: Path, kind: str) -> None:
    begins = {"html": b"<!doctype html>", "png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}
    path = show.route(recounted_store, 0).save(tmp_path / f"a.{kind.upper()}")
    assert path.read_bytes().startswith(begins[kind])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_leaves_nothing(recounted_store: Path, tmp_path: Path) -> None:
    picture, before = show.route(recounted_store, 0), recounted_store.read_bytes()
    for path, said in {
        tmp_path / "a.gif": r"a.gif has no ending that says what to write; let its name end in .html, .png, .svg, .pdf",
        tmp_path / "none" / "a.svg": "there is no folder",
        tmp_path: "has no ending",
    }.items():
        with pytest.raises(InputError, match=said):
            picture.save(path)
    store = tmp_path / "copy.svg"
    store.write_bytes(before)
    with pytest.raises(InputError, match="is a DuckDB file, over which moescope writes no result"):
        picture.save(store)
    assert (store.read_bytes() == before, len(list(tmp_path.iterdir()))) == (True, 1)


def test_names_say_run_and_layer(recounted_store: Path) -> None:
    assert show.tokens(recounted_store, 7, 1).name == "moescope-a-run-0-decoder-1-sequence-7-tokens"
    assert show.experts(recounted_store, "decoder 1", run=0).name == "moescope-a-run-0-decoder-1-experts"


def test_nothing_heavy_is_loaded(recounted_store: Path) -> None:
    heavy = "{'torch', 'streamlit'} & {*sys.modules}"
    program = f"import sys, moescope; moescope.show.tokens({str(recounted_store)!r}); print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


def test_an_open_store_is_asked_and_stays_open(recounted_store: Path) -> None:
    with moescope.open(recounted_store) as store:
        assert show.load(store, 0).frame.equals(show.load(recounted_store, 0).frame)
        assert store.rows("select count(*) from runs") == [(2,)]
