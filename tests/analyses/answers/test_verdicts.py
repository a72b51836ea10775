"""Every analysis ends in a sentence that can be signed: over planted and random worlds, and where something is lacking."""

import functools
import re

import pandas as pd
import pytest
import questions

import moescope
from moescope import analyses, statistics
from moescope.analyses._shared import answer as _answer
from moescope.analyses._shared.answer import figures
from moescope.analyses._shared.verdicts import saying
from moescope.analyses._shared.verdicts.verdict import MOST, of_figures
from moescope.discover import modules
from moescope.errors import AnalysisError

NAMES = [entry["name"] for entry in analyses.catalogue() if not entry["required"]]
BAD = {
    "a number that is none": r"\bnan\b|\binf\b|\bNone\b|<NA>",
    "a number as no one writes it": r"\d[eE][-+]\d",
    "less than nothing of something": r"(?<![\[\w. ])-\d|(?<![\[,]) -\d[\d.]* (bits|nats|dimensions)",
    "no expert that never": r"\bno expert never\b",
    "an expert without its layer": r"\bexpert \d+(?! of (\w+ )?layer \d)",
    "an empty place": r"  |\(\)|\( |; ;|, ,",
}
UNIT = r"\d (bits|nats|logits|%|dimensions|times|blocks and recursions|of 1)|\d+ decisions"
SPAN = r"\[-?[\d.,]+, -?[\d.,]+\]|no interval: |at most "
NULL = r"; null: [^;]+(; for contrast[^;]*)?; [qp] (=|<|≤) (0?\.\d+|1)( \([\w'., ]+\))? over \d|; no null: \w+"
NOTHING = r"(?i)no more|nothing|no (expert|attribute|label)|as even|alike|cannot be said"

LEVELS = ("diff", "depth", "dimensionality", "grouping", "path_probe", "steering")  # say a level beside what they find


def answered(store, name, run=None):
    """The answer, or the sentence of the refusal."""
    try:
        return analyses.run(name, store, run, **questions.OPTIONS.get(name, {}))
    except AnalysisError as refusal:
        return str(refusal)


@pytest.fixture(scope="module", params=[True, False], ids=["planted", "by chance"])
def world(request, tmp_path_factory):
    """Whether anything is planted, {name: answer}, and the store; answers are kept."""
    folder = tmp_path_factory.mktemp("world")
    path = questions.written(folder / "runs.duckdb", request.param)
    with pytest.MonkeyPatch.context() as patch, moescope.open(path) as store:
        patch.setenv("MOESCOPE_CACHE", str(folder))
        yield request.param, {name: answered(store, name) for name in NAMES}, store


def sound(sentence):
    """What is wrong with a sentence, whatever it says."""
    sentence = re.sub(r"(in|of) (\w+ )?layer \d+ experts? [\d, ]+", "there ", sentence)
    found = {what: match[0] for what, pattern in BAD.items() if (match := re.search(pattern, sentence))}
    return found | ({} if re.fullmatch(r"[A-Z0-9].*\.", sentence, re.S) else {"no sentence": sentence})


@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_can_be_signed(world, name):
    answer = world[1][name]
    if isinstance(answer, str):
        assert sound(answer[:1].upper() + answer[1:] + ".") == {}
        return
    said = answer.verdict
    assert sound(said.sentence) == {}
    whole = f"{said.follows} ({said.evidence})"
    assert re.search(UNIT, whole), said.sentence
    assert re.search(SPAN, whole), said.sentence
    assert re.search(r"\b[\d,]+ documents?\b|documents not counted", said.evidence), said.sentence
    assert re.search(NULL, f"; {said.evidence}"), said.sentence
    assert said.limits, said.sentence
    assert said.ask.startswith("moescope ablate ") or said.ask.split()[2] in NAMES
    assert "{" not in said.ask


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_carry_what_is_said(world, name):
    """They are figures of the answer; where none is a finding, none is claimed; and where something was planted, it is."""
    planted, answers, _ = world
    answer = answers[name]
    if isinstance(answer, str):
        return
    rows = answer.verdict.rows
    assert list(rows) == _answer.COLUMNS
    assert 0 < len(rows) <= MOST
    figures = answer.frames["figures"][["name", "estimator", "stack", "router", "expert", "subset"]]
    assert len(rows.merge(figures, on=list(figures))) >= len(rows)
    tested = rows[rows["q"].notna()]
    claimed = any(not re.search(NOTHING, part) for part in answer.verdict.follows.split(";"))
    if len(tested) and name not in LEVELS:
        assert claimed <= bool((tested["q"] <= saying.FDR).any()), answer.verdict.sentence
        assert claimed or not planted or name in ("load", "specialization", "signatures"), answer.verdict.sentence


def test_all_of_ours_answer(world):
    _, answers, _ = world
    refused = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    assert [name for name, why in refused.items() if "make it with moescope experiment" not in why] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sampled(12)
def test_a_kept_answer_is_the_answer(world, name, monkeypatch):
    """Whole, row by row and chart by chart, and computed no more."""
    _, answers, store = world
    if isinstance(answers[name], str):
        return
    first = answers[name]
    module = modules("analyses")[name]

    @functools.wraps(module.run)
    def computed(*given, **options):
        raise AssertionError(f"{name} is computed again")

    monkeypatch.setattr(module, "run", computed)
    again = analyses.run(name, store, first.run, **questions.OPTIONS.get(name, {}))
    assert again.to_json() == first.to_json() | {"chosen": ""}
    for title, frame in first.frames.items():
        pd.testing.assert_frame_equal(frame, again.frames[title])
    pd.testing.assert_frame_equal(first.verdict.rows, again.verdict.rows)
    assert list(first.charts()) == list(again.charts())


def test_q_is_never_below_what_its_draws_allow(world):
    """Neither in the sentence nor in a row as it is shown."""
    for answer in world[1].values():
        if isinstance(answer, str):
            continue
        frame = answer.frames["figures"]
        for _, row in frame[frame["p"].notna() & frame["p_from"].str.fullmatch(r"count of \d+ draws")].head(200).iterrows():
            value = float(re.search(r"[\d.]+$", saying.chance_of(row, "p"))[0])
            assert value >= 0.95 / (int(row["p_from"].split()[2]) + 1)


def test_q_was_taken_over_what_is_said(world):
    """Computed again from p, the tests of its family and the number of families; a sentence names those of a figure."""
    for name, answer in world[1].items():
        if isinstance(answer, str) or answer.frames["figures"]["p"].notna().sum() == 0:
            continue
        rows = answer.frames["figures"].dropna(subset=["p"])
        every, times = rows["tests"].astype(int), rows["families"].astype(int)
        assert (rows["q"] <= (rows["p"] * every * times).clip(upper=1) + 1e-12).all(), name
        assert (rows["q"] >= (rows["p"] * times).clip(upper=1) - 1e-12).all(), name
        for _, family in rows.groupby(["name", "estimator"]):
            if len(family) == family["tests"].iloc[0]:
                again = (statistics.fdr(family["p"].to_numpy()) * family["families"].astype(int)).clip(upper=1)
                assert family["q"].to_numpy() == pytest.approx(again.to_numpy()), name
        if said := re.search(r"over ([\d,]+) [\w ]+?(?:, times (\d+) kinds of figure)?$", answer.verdict.evidence):
            assert (int(said[1].replace(",", "")), int(said[2] or 1)) in set(zip(every, times)), answer.verdict.evidence


@pytest.mark.parametrize("what", ["empty", "one document", "unlabelled"])
def test_what_is_lacking_is_said(what, tmp_path):
    """In a sentence that says what to do, or with the reason why no interval is there."""
    path = questions.lacking(tmp_path / "run.duckdb", what)
    with moescope.open(path) as store:
        for name in NAMES:
            answer = answered(store, name)
            said = answer if isinstance(answer, str) else answer.verdict.sentence
            assert sound(said[:1].upper() + said[1:].removesuffix(".") + ".") == {}, (name, said)
            if isinstance(answer, str):
                assert re.search(r"; .*(trace|ask|give|make)|\b(trace|ask|give|name)\b", answer), (name, answer)
            elif what == "one document" and "[" not in answer.verdict.follows:
                assert re.search(r"no interval: 1 document, and 5 are needed|at most", said), (name, said)


def row(**changes):
    base = {"name": "I(x; y) (bits)", "estimator": "plug-in", "stack": "decoder", "layer": 2, "router": 1, "expert": pd.NA}
    base |= {"subset": "", "value": 0.2131, "ci_low": 0.1842, "ci_high": 0.2519, "units": 64, "p": 0.02, "q": 0.03}
    base |= {"p_from": "count of 99 draws"}
    return pd.Series(base | {"null": "labels dealt anew", "n": 100} | changes)


@pytest.mark.parametrize(
    ("changes", "unit", "said"),
    [
        ({}, None, "0.21 bits [0.18, 0.25]"),
        ({"ci_low": 0.2029, "ci_high": 0.2233}, None, "0.213 bits [0.203, 0.223]"),
        ({"value": -0.00001, "ci_low": -0.001, "ci_high": 0.001}, None, "0.0000 bits [-0.0010, 0.0010]"),
        ({"units": 3, "ci_low": None, "ci_high": None}, None, "0.213 bits (no interval: 3 documents, and 5 are needed)"),
        ({"value": 0.976, "ci_low": 0.971, "ci_high": 0.980}, "%", "97.6 % [97.1, 98.0]"),
        ({"units": pd.NA, "ci_low": None, "ci_high": None, "name": "n"}, "dimensions",
         "0.213 dimensions (no interval: it is a count, of no sample of documents)"),
    ],
)  # fmt: skip
def test_amounts(changes, unit, said):
    assert saying.amount(row(**changes), unit) == said


@pytest.mark.parametrize(
    ("q", "p_from", "said"),
    [(0.03, "count of 99 draws", "q = 0.03"), (6e-81, "count of 99 draws", "q < 0.01"), (0.01, "count of 99 draws", "q ≤ 0.01"),
     (0.0123, "count of 999 draws", "q = 0.012"), (1e-9, "Student's t through 99 draws", "q < 0.001"),
     (0.4, "", "q = 0.4"), (1.0, "count of 99 draws", "q = 1")],
)  # fmt: skip
def test_q_as_it_is_said(q, p_from, said):
    assert saying.chance_of(row(q=q, p_from=p_from)) == said


def test_a_fitted_tail_is_named():
    frame = pd.DataFrame([row(p_from="Student's t through 99 draws")])
    said = "64 documents; null: labels dealt anew; q = 0.03 (Student's t through 99 draws) over 1 router"
    assert saying.evidence(frame.iloc[0], frame) == said


def test_a_test_that_takes_more_documents_is_no_test():
    """One document of each label: there is a null, but no p."""
    row = figures(
        {"stack": "decoder", "layer": 0, "router": 0}, "I(a; b) (bits)", 0.1, source="", null_name="labels dealt", units=2
    )
    assert saying.evidence(row.iloc[0], row) == "2 documents; no null: too few documents for labels dealt"


def test_a_sentence_alone_gets_its_evidence():
    """Of an analysis from elsewhere that gives no more than a sentence."""
    frame = pd.DataFrame([row(q=0.4), row(layer=5, router=2)])
    said = of_figures("The moon tells of routing.", frame)
    evidence = "I(x; y) (layer 5): 0.21 bits [0.18, 0.25]; 64 documents; null: labels dealt anew; q = 0.03 over 2 routers"
    assert said.sentence == f"The moon tells of routing ({evidence})."
    assert said.rows["router"].tolist() == [2, 1]


def test_bits_below_nothing_are_said_as_what_they_stay_under():
    """A guess on held-out documents can lose bits; whoever reads "-0.001 bits of information" stops reading."""
    frame = pd.DataFrame([row(value=-0.001, ci_low=-0.002, ci_high=0.0005), row(value=-0.1, ci_low=-0.3, ci_high=-0.1, q=0.9)])
    evidence = "I(x; y) (layer 2): at most 0.0005 bits (largest upper end of the 95 % intervals); 64 documents"
    assert of_figures("Nothing follows.", frame).evidence.startswith(evidence)
    assert "at most 0 bits" in of_figures("Nothing follows.", frame, frame.iloc[1:]).evidence
    assert "-0.0010 nats" in of_figures("The loss fell.", frame, unit="nats").evidence


def test_places():
    one = pd.DataFrame([row(), row(router=2)])
    assert saying.layer(one.iloc[0], one) == "layer 2 (router 1)"
    two = pd.DataFrame([row(), row(stack="encoder", router=2, expert=7)])
    assert saying.expert(two.iloc[1], two) == "expert 7 of encoder layer 2"
