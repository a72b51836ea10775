"""The probe suites: as built, read by the library, balanced, and answered right when the answer is planted."""

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from moescope.inputs import Example, read

HOME = Path(__file__).parents[2] / "probes"
Sentence = tuple[Example, list[tuple[str, dict[str, str]]]]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", HOME / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sentences(file: str) -> list[Sentence]:
    found = []
    for example in read(str(HOME / file)).examples:
        assert example.text
        found.append((example, [(example.text[w.start : w.end], dict(w.labels)) for w in example.words]))
    return found


def places(file: str, kind: str, labels: set[str]) -> dict[str, Counter[tuple[str, int]]]:
    """By word form: how often it has each label at each place."""
    found: dict[str, Counter[tuple[str, int]]] = {}
    for example, words in sentences(file):
        for place, (form, labelled) in enumerate(words):
            if labelled.get(kind) in labels and example.labels["pair"] == form:
                found.setdefault(form, Counter())[labelled[kind], place] += 1
    return found


def test_files_are_as_built(build: ModuleType) -> None:
    for file, suite in build.SUITES.items():
        assert (HOME / file).read_text(encoding="utf-8") == suite(), f"{file}: run python probes/build.py"


@pytest.mark.parametrize(
    ("file", "count"), [("pos.conllu", 120), ("sense.conllulex", 120), ("agreement.conllulex", 120), ("roles.conllulex", 60)]
)
def test_read(file: str, count: int) -> None:
    found = sentences(file)
    assert len(found) == count
    assert len({example.document for example, _ in found}) == count
    assert len({example.text for example, _ in found}) == count
    assert all({"pair", "condition"} <= set(example.labels) for example, _ in found)
    assert all("upos" in labels and "deprel" in labels for _, words in found for _, labels in words)


def test_pos_holds_form_and_place() -> None:
    found = places("pos.conllu", "upos", {"NOUN", "VERB"})
    assert len(found) == 40
    for form, counts in found.items():
        assert {place for _, place in counts} in ({3}, {1, 3}), form
        for place in {place for _, place in counts}:
            assert counts["NOUN", place] == counts["VERB", place] == 1


def test_sense_holds_all_but_the_cue() -> None:
    senses = {labels.get("supersense", "") for _, words in sentences("sense.conllulex") for _, labels in words} - {""}
    found = places("sense.conllulex", "supersense", senses)
    assert len(found) == 30
    for form, counts in found.items():
        assert sorted(counts.values()) == [2, 2], form
        assert {place for _, place in counts} == {4}


def test_agreement_and_roles_cross() -> None:
    verbs = Counter((f, x["supersense2"]) for _, w in sentences("agreement.conllulex") for f, x in w if "supersense2" in x)
    assert len(verbs) == 60
    assert set(verbs.values()) == {2}
    found: dict[str, set[tuple[str, str]]] = {}
    for example, words in sentences("roles.conllulex"):
        (target,) = [i for i, (_, labels) in enumerate(words) if "supersense2" in labels]
        form, labels = words[target]
        assert (target, form, words[target - 1][0]) == (5, example.labels["pair"], "the")
        found.setdefault(form, set()).add((labels["deprel"], labels["supersense2"]))
    assert len(found) == 15
    assert all(seen == {(d, r) for d in ("obj", "obl") for r in ("p.Agent", "p.Theme")} for seen in found.values())
