"""Every page over stores as odd as people bring: no error, no word of a program alone, and a sentence on what is missing."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import told_systems
from odd_stores import ODD
from pages import nothing, opened, part, view
from said import faults, texts

import moescope

MAKERS: dict[str, Callable[[Path], Path]] = ODD | {
    make.__name__: make for make in (told_systems.denoiser, told_systems.recursions, told_systems.tree)
}
VIEWS = sorted(path.stem for path in (Path(__file__).parents[2] / "moescope" / "app" / "views").glob("[a-z]*.py"))
STATES = [
    ("tokens", {"token": "0"}), ("tokens", {"by": "margin"}), ("experts", {"show": "all"}), ("experts", {"more": "company"}),
    ("experts", {"more": "without"}), ("experts", {"expert": "1"}), ("experts", {"find": "w1"}), ("load", {"what-if": "1"}),
    ("load", {"split": "first token"}), ("structure", {"follow": "1"}), ("meaning", {"question": "specialization"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An odd store, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("odd")
    return cache(lambda name: MAKERS[name](folder / f"{name}.duckdb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("page", "query"), [*((page, {}) for page in VIEWS), *STATES])
@pytest.mark.sampled(8)
def test_every_page_opens(
    name: str, page: str, query: dict[str, str], store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = opened(store(name), page, monkeypatch, **query)
    assert name == "markup" or faults(test) == []


SAYS = [
    ("counted", "experts", {}, "holds counts of experts alone"), ("counted", "structure", {}, "holds counts of experts alone"),
    ("counted", "load", {}, "holds counts of experts alone"), ("counted", "tokens", {}, "holds counts of experts alone"),
    ("unweighted", "experts", {"layer": "layer 1"}, "No decision of layer 1 was recorded"),
    ("unweighted", "structure", {"layer": "layer 1"}, "No decision of layer 1 was recorded"),
    ("one_token", "experts", {}, "The tokens have no text"), ("nothing_ran", "experts", {}, "No decision of layer"),
    ("images", "experts", {"layer": "layer 3"}, "Where in the image"), ("textless", "experts", {}, "No labels in this run"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "page", "query", "words"), SAYS)
@pytest.mark.sampled(5)
def test_what_is_missing_is_said(
    name: str, page: str, query: dict[str, str], words: str, store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = opened(store(name), page, monkeypatch, **query)
    assert [text for text in texts(test) if words in text] != [], nothing(test)


@pytest.fixture
def health(store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The cards of the page Runs, by their label."""

    def found(name: str) -> dict[str, Any]:
        monkeypatch.setenv("MOESCOPE_STORE", str(store(name)))
        (run,) = part("parts.pickers").runs()
        return {label: (value, note) for label, value, note, _ in view("runs").health(run)}

    return found


def test_a_layer_of_which_nothing_was_captured_is_not_dead(health: Callable[[str], dict[str, Any]]) -> None:
    """Of three layers two are in the table, in which every expert ran; a mean with the third was 65 %."""
    cards = health("unweighted")
    assert cards["Decisions"] == ("20", "10 tokens, 3 routers, of 1 of which nothing was recorded")
    assert cards["Dead experts"] == ("0 of 8", "every expert ran")
    assert cards["Load evenness"] == ("97.5 %", "of the largest entropy, mean of layers")
    assert cards["Not finite"] == ("–", "the capture has no router logits")
    assert cards["Rate"][1] == "tokens"


def test_a_run_of_nothing_has_no_health(health: Callable[[str], dict[str, Any]]) -> None:
    assert [health("nothing_ran")[label][0] for label in ("Load evenness", "Dead experts", "Dropped")] == ["–"] * 3


def test_when_routing_collapsed_is_said(store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what each step ran: from which step on, to the end, half of the experts have nothing or entropy is under half."""
    monkeypatch.setenv("MOESCOPE_STORE", str(store("collapsed")))
    with moescope.open(store("collapsed")) as opened_store:
        ran = opened_store.rows(
            "select router, step, expert, count(*) from assignments join forwards using (forward) group by all"
        )
    loads = np.zeros((3, 31, 8))
    for router, step, expert, n in ran:
        loads[router, step, expert] = n
    shares = loads[:, 1:] / loads[:, 1:].sum(2, keepdims=True)
    even = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(2) / np.log(8)
    bad = (even < 0.5) | ((shares == 0).sum(2) >= 4)
    began = {r: 31 - int(np.logical_and.accumulate(bad[r, ::-1]).sum()) for r in range(3)}
    found = part("queries.training_end").since(0)
    assert (found, list(found.values())) == (began, sorted(began.values()))
    words = part("parts.load.training").collapsed({4: 7, 1: 9}, {4: "layer 2", 1: "layer 0"})
    assert words.startswith("Routing collapsed in layer 2 from step 7 on, layer 0 from step 9 on: since then")


@pytest.mark.parametrize(("spot", "where"), [("1.2", "at place 1, 2"), ("9.9", "anywhere"), ("x", "anywhere")])
def test_a_map_of_patches_opens_the_patches_of_a_place(
    spot: str, where: str, store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = opened(store("images"), "experts", monkeypatch, layer="layer 3", spot=spot)
    assert [text for text in texts(test) if f"Images with a patch outlined, {where}, whose" in text] != []
    galleries = [h.proto.body for h in test.get("html") if 'class="ms-gallery"' in h.proto.body]
    placed = [title.split(", patch ")[1] for body in galleries for title in re.findall(r'title="([^"]*)"', body)]
    assert where == "anywhere" or set(placed) <= {"1, 2"}


def test_chance_counts_experts_that_compute_nothing(store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Top-2 of four routed experts and two identities: of the tokens of one expert, a fifth has another by chance."""
    monkeypatch.setenv("MOESCOPE_STORE", str(store("identity")))
    layers = part("parts.pickers").layers(0)
    assert [(x.experts, x.choices, x.even, x.pairs(2)) for x in layers] == [(4, 6, 0.25, 0.2)] * 2
