"""Answers are computed once, wherever they are asked, and again only when what they depend on has changed."""

import shutil

import pandas as pd
import pytest
import synthetic
from click.testing import CliRunner

import moescope
from moescope import analyses
from moescope.analyses import Answer
from moescope.analyses._shared import answer, saving
from moescope.analyses._shared.keeping import kept
from moescope.analyses._shared.scope import scope
from moescope.cli import main
from moescope.discover import modules
from moescope.store import Store
from moescope.store.content import digest
from moescope.store.write.change import change_store
from moescope.words import RunNumber

LOAD, DIFF = modules("analyses")["load"], modules("analyses")["diff"]


def charts(answer):
    """None."""
    return {}


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """What was computed, over a cache of its own; load and diff answer at once."""
    monkeypatch.setenv("MOESCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(LOAD, "charts", charts)
    monkeypatch.setattr(DIFF, "charts", LOAD.charts)
    times = {"load": 0, "diff": 0}

    def said(name, store, run):
        times[name] += 1
        where = {"layer": 1, "router": 2, "expert": [0, 1]}
        frame = answer.gather([answer.figures(where, "made", [0.5, 0.25], source="made", n=7, units=3)])
        words = pd.DataFrame({"text": ["a", None], "n": pd.array([1, None], dtype="Int64")})
        frames = {"figures": frame, "words": words}
        sql, sentence = dict.fromkeys(frames, "from runs"), f"Made of {times[name]}."
        return Answer(name, "Made", sentence, scope(store, run).run, frames, sql, ["a note"], charts)

    def load(store: Store, run: int | None = None, by: str | None = None) -> Answer:
        return said("load", store, run)

    def diff(store: Store, run: int | None = None, other: RunNumber | None = None) -> Answer:
        DIFF.beside(store, run, other)
        return said("diff", store, run)

    monkeypatch.setattr(LOAD, "run", load)
    monkeypatch.setattr(DIFF, "run", diff)
    return times


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "run.duckdb"
    synthetic.make(path, synthetic.verbs(3), documents=6, tokens=12, layers=(0, 1))
    synthetic.make(path, synthetic.verbs(3), documents=6, tokens=12, layers=(0, 1), seed=1)
    return path


@pytest.fixture
def store(made, tmp_path):
    """Two runs of the same inputs, a copy for every test."""
    return shutil.copy(made, tmp_path / "run.duckdb")


def test_terminal_report_and_dashboard_read_one_answer(computed, store, monkeypatch):
    from moescope.app.parts import answers

    page, on_top = store.with_suffix(".html"), []
    with monkeypatch.context() as patch:
        patch.setattr(analyses, "modules", lambda package: {"load": LOAD})
        said = CliRunner().invoke(main, ["analyze", "load", str(store), "--run", "1"])
        assert said.exit_code == 0, said.output
        assert CliRunner().invoke(main, ["report", str(store), "--run", "1", "-o", str(page)]).exit_code == 0
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    monkeypatch.setattr(answers.panels, "reading", on_top.append)
    shown, _ = answers._answer("load", 1, {})
    for run in (0, 1):
        answers.verdict.__wrapped__("load", {"run": run})
    assert on_top == [shown.verdict.sentence]
    assert computed["load"] == 1
    for text in (said.output, page.read_text(), shown.verdict.sentence):
        assert "Made of 1 (made (expert 0 of layer 1): 0.500 (no interval: 3 documents, and 5 are needed); " in text
    assert (answers._known("load", 1, {}), answers._known("load", 0, {})) == (True, False)


def insert_run(path):
    synthetic.make(path, documents=3, tokens=6, layers=(0,))


def moved(path):
    shutil.copy(path, path.with_name("copy.duckdb")).rename(path)


def sql(statement):
    return lambda path: change_store(path, lambda con: con.execute(statement))


SAME = {
    "another run": insert_run,
    "another copy": moved,
    "an ablation": sql("insert into ablations (run, ablation, delta_nll) values (1, 'x', 0.5)"),
    "saved figures": lambda path: saving.save(path, analyses.run("load", path, 1)),
    "another run's labels": sql("update token_labels set label = 'X' where token in (select token from tokens where run = 0)"),
}
OTHER = {
    "a label": sql("update sequence_labels set label = 'law' where sequence = (select max(sequence) from sequences)"),
    "a token's label": sql("update token_labels set label = 'X' where token = (select max(token) from tokens where run = 1)"),
    "an expert": sql("update routes_2 set e0 = e1, e1 = e0 where run = 1 and token = (select max(token) from tokens)"),
    "a weight": sql("update routes_2 set w0 = w0 + 0.125 where run = 1 and token = (select max(token) from tokens)"),
    "an entropy": sql("update routes_2 set entropy = 0 where run = 1 and token = (select max(token) from tokens)"),
    "a document": sql("update sequences set document = 'other' where sequence = (select max(sequence) from sequences)"),
    "a word": sql("update vocab set text = 'other' where vocab_id = 3"),
    "a measure of the trace": sql("insert into measures (run, router, name, value) values (1, 2, 'reap', 0.5)"),
    "a router's kind": sql("update routers set kind = 'hash' where run = 1"),
    "a warning": sql("update runs set warnings = '[\"x\"]' where run = 1"),
}


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_matter_leaves_it(what, computed, store):
    first = analyses.run("load", store, 1)
    SAME[what](store)
    assert analyses.run("load", store, 1).to_json() == first.to_json()
    assert computed["load"] == 1


@pytest.mark.sampled(5)
@pytest.mark.parametrize("what", OTHER)
def test_what_matters_has_it_computed_again(what, computed, store):
    analyses.run("load", store, 1)
    OTHER[what](store)
    analyses.run("load", store, 1)
    assert computed["load"] == 2
    analyses.run("load", store, 1)
    assert computed["load"] == 2


def test_options_and_code_matter_and_a_default_is_no_other(computed, store, monkeypatch):
    for options, times in (({}, 1), ({"by": None}, 1), ({"by": "domain"}, 2), ({"by": "domain"}, 2)):
        analyses.run("load", store, 1, **options)
        assert computed["load"] == times
    monkeypatch.setattr(kept, "code_of", lambda module: "another version")
    analyses.run("load", store, 1)
    assert computed["load"] == 3
    analyses.run("load", store, 1, fresh=True)
    assert computed["load"] == 4


def test_a_file_that_an_option_names_matters(computed, store, tmp_path):
    file = tmp_path / "features.npz"
    for content, times in (("a", 1), (None, 1), ("bb", 2)):
        if content:
            file.write_text(content)
        analyses.run("load", store, 1, by=str(file))
        assert computed["load"] == times


def test_a_comparison_depends_on_both_runs(computed, store):
    """Also on which run is the other one, where nobody named it."""
    analyses.run("diff", store, 1)
    sql("update token_labels set label = 'X' where token = 0")(store)  # of run 0
    analyses.run("diff", store, 1)
    assert computed["diff"] == 2
    insert_run(store)
    analyses.run("diff", store, 1)
    assert computed["diff"] == 2
    synthetic.make(store, documents=6, tokens=12, layers=(0, 1), seed=5)
    analyses.run("diff", store, 1)  # run 3 is another one to compare with, but an earlier one goes first
    assert computed["diff"] == 2
    analyses.run("diff", store, 1, other=3)
    assert computed["diff"] == 3


def test_an_option_that_names_a_run_is_taken_as_all_runs_where_nothing_is_said(computed, store, monkeypatch):
    monkeypatch.delattr(DIFF, "beside")
    with moescope.open(store) as opened:
        assert kept._beside(DIFF, opened, 1, {"other": None}) == [0]
        assert kept._beside(LOAD, opened, 1, {"by": None}) == []


def test_neither_the_store_nor_its_folder_is_written(computed, store):
    before, there = store.read_bytes(), {file.name for file in store.parent.iterdir()}
    analyses.run("load", store)
    analyses.run("diff", store)
    assert store.read_bytes() == before
    assert {file.name for file in store.parent.iterdir()} - there == {"cache"}


@pytest.mark.parametrize("place", ["off", "", "/dev/null/no folder"])
def test_where_nothing_can_be_kept_it_is_computed(place, computed, store, monkeypatch):
    monkeypatch.setenv("MOESCOPE_CACHE", place)
    for times in (1, 2):
        analyses.run("load", store, 1)
        assert computed["load"] == times


@pytest.mark.parametrize("damage", [b"", b"PK\x05\x06" + bytes(18), b"no zip"], ids=["empty", "nothing in it", "no zip"])
def test_a_damaged_file_is_computed_again(damage, computed, store, tmp_path):
    analyses.run("load", store, 1)
    (file,) = (tmp_path / "cache" / "answers").iterdir()
    file.write_bytes(damage)
    analyses.run("load", store, 1)
    assert computed["load"] == 2
    analyses.run("load", store, 1)
    assert computed["load"] == 2


def test_a_run_that_is_still_traced_is_not_kept(computed, tmp_path):
    import handmade

    writer = handmade.written(tmp_path / "growing.duckdb", batches=1, close=False)
    with moescope.open(tmp_path / "growing.duckdb") as opened:
        assert kept.key(LOAD, opened, 0, {"by": None}) is None
    writer.discard()


def test_the_least_read_go_first(computed, store, tmp_path, monkeypatch):
    analyses.run("load", store, 1)
    (one,) = (tmp_path / "cache" / "answers").iterdir()
    monkeypatch.setattr(kept, "LIMIT", one.stat().st_size)
    analyses.run("diff", store, 1)
    (other,) = (tmp_path / "cache" / "answers").iterdir()
    assert other.name != one.name


def test_a_digest_is_of_one_run_wherever_it_lies(store):
    copy = shutil.copy(store, store.with_name("copy.duckdb"))
    insert_run(copy)
    with moescope.open(store) as one, moescope.open(copy) as other:
        assert [digest(one, run) for run in (0, 1)] == [digest(other, run) for run in (0, 1)]
        assert len({digest(other, run) for run in (0, 1, 2)}) == 3
