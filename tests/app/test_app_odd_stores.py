"""Every page over stores as odd as people bring: no error, no word of a program alone, and a sentence on what is missing."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import told_systems
from odd_stores import ODD
from pages import nothing, opened, part, view
from said import faults, texts

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
