"""The door: every analysis over stores with planted and with random structure; refusals; what is kept."""

import json

import numpy as np
import pytest
import synthetic

import moescope
from moescope import analyses
from moescope.analyses._shared import answer as _answer
from moescope.analyses._shared import report_page, saving
from moescope.errors import AnalysisError
from moescope.store.write.change import change_store

OWN = ("load", "specialization", "structure")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "run.duckdb"
    synthetic.make(path, synthetic.verbs(3), synthetic.specialist("code", 5), synthetic.dead(7), logits=True)
    with moescope.open(path) as store:
        yield store


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "run.duckdb"
    synthetic.make(path, seed=3)
    with moescope.open(path) as store:
        yield store


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "run.duckdb"
    synthetic.make(path, synthetic.corner(1), synthetic.specialist("law", 2), side=4, label="class", documents=45)
    with moescope.open(path) as store:
        yield store


@pytest.mark.parametrize("entry", analyses.catalogue(), ids=lambda entry: entry["name"])
def test_every_analysis_says_what_it_asks(entry):
    assert entry["title"]
    assert entry["question"].endswith("?")
    assert len(entry["method"]) > 100


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("which", ["planted", "plain", "images"])
def test_answers_are_whole(name, which, request):
    store = request.getfixturevalue(which)
    answer = analyses.run(name, store)
    figures = answer.frames["figures"]
    assert list(figures) == _answer.COLUMNS
    assert np.isfinite(figures["value"]).all()
    assert (figures["source"].str.len() > 0).all()
    assert (figures["null"].str.len() > 0).all()
    known = figures.dropna(subset=["ci_low", "p"])
    assert len(known)
    assert (known["ci_low"] <= known["ci_high"]).all()
    assert known["p"].between(0, 1).all()
    assert answer.reading.endswith(".")
    for sql in answer.sql.values():
        assert store.sql(sql).limit(1).fetchall() is not None
    assert json.loads(json.dumps(answer.to_json()))["name"] == name
    assert all(drawn.chart.to_dict() for drawn in answer.charts().values())


def test_planted_structure_is_found(planted):
    load = analyses.run("load", planted)
    dead = load.figures("dead experts", subset="")
    assert dead["value"].tolist() == [1, 1, 1]
    answer = analyses.run("specialization", planted)
    special = answer.frames["specialists"]
    best = special[special["lift"] > 1.7]
    assert set(zip(best["router"], best["expert"], best["subset"])) == {(r, 5, "domain=code") for r in range(3)}
    info = answer.figures("I(label; expert) (bits)", estimator="less null mean")
    assert (info["q"] < 0.01).all()
    words = answer.frames["vocabulary"]
    strong = words[(words["attribute"] == "input id") & (words["q"] < 0.01) & (words["value"] > 0.8)]
    assert {(e, i % 5) for e, i in zip(strong["expert"], strong["value_id"])} >= {(3, 1)}  # ids 1, 6, 11, ... are verbs
    flow = analyses.run("structure", planted).figures("I(expert; expert in the next layer) (bits)", estimator="less null mean")
    assert (flow["q"] < 0.01).all()


def test_planted_patch_position_and_class_are_found(images):
    answer = analyses.run("specialization", images)
    cells = answer.frames["vocabulary"]
    found = cells[(cells["q"] < 0.01) & (cells["value"] > cells["null_mean"])]
    assert set(zip(found["value_id"], found["expert"])) == {(0, 1)}
    assert set(answer.frames["specialists"].query("lift > 1.7")["subset"]) == {"class=law"}


def test_figures_agree_with_plain_sql(planted):
    answer = analyses.run("specialization", planted)
    row = answer.figures("domain specialization", subset="domain=law", router=1, expert=3).iloc[0]
    naive = planted.rows(
        "select count(*) filter (expert = 3) / (select count(*) from decisions join tokens using (token) join sequences "
        "using (sequence) where router = 1 and domain = 'law') from routing where router = 1 and domain = 'law'"
    )[0][0]
    assert row["value"] == pytest.approx(naive, rel=1e-9)
    entropy = analyses.run("load", planted).figures("load entropy (bits)", subset="", router=1)["value"].iloc[0]
    assert entropy == pytest.approx(planted.rows("select entropy_bits from load_balance where router = 1")[0][0], rel=1e-9)
    repeated = analyses.run("structure", planted).figures("repetition, first choice", subset="", router=1)["value"].iloc[0]
    pairs = planted.rows(
        "with f as (select sequence, position, expert from assignments join tokens using (token) "
        "where router = 1 and rank = 0) "
        "select avg((a.expert = b.expert)::int) from f a join f b on b.sequence = a.sequence and b.position = a.position + 1"
    )
    assert repeated == pytest.approx(pairs[0][0], rel=1e-9)


def test_refusals_say_what_is_there(plain, tmp_path):
    with pytest.raises(AnalysisError, match=r"there is no analysis 'loads'; there are: .*load"):
        analyses.run("loads", plain)
    with pytest.raises(AnalysisError, match="has no run 9; it has: 0"):
        analyses.run("load", plain, 9)
    with pytest.raises(AnalysisError, match=r"label 'genre'; labels there, with how many values: domain \(3\)"):
        analyses.run("specialization", plain, by="genre")
    with pytest.raises(AnalysisError, match="has no option 'colour'"):
        analyses.run("load", plain, colour=1)
    with pytest.raises(AnalysisError, match=r"no other run of .* read the inputs of run 0"):
        analyses.run("diff", plain)
    synthetic.make(tmp_path / "one.duckdb", documents=3, tokens=12, domains=("code",))
    with moescope.open(tmp_path / "one.duckdb") as store:
        with pytest.raises(AnalysisError, match="one domain only"):
            analyses.run("specialization", store, by="domain")
        answer = analyses.run("load", store)
        assert answer.figures("load entropy (bits)")["ci_low"].isna().all()
        assert any("fewer than 5 documents" in note for note in answer.notes)


def test_newest_complete_run_and_said(tmp_path):
    path = tmp_path / "two.duckdb"
    for seed in (1, 2):
        synthetic.make(path, seed=seed, documents=6, name=f"seed {seed}")
    with moescope.open(path) as store:
        answer = analyses.run("load", store)
    said = "2 runs are in the store; this is run 1 (seed 2), the newest that can answer. There is also run 0 (seed 1)."
    assert (answer.run, answer.chosen) == (1, said)


def test_diff_finds_what_changed(tmp_path):
    path = tmp_path / "two.duckdb"
    synthetic.make(path, seed=1)
    synthetic.make(path, seed=1, noise=0.05)
    synthetic.make(path, seed=1)
    with moescope.open(path) as store:
        answer = analyses.run("diff", store, 1, other=0)
        same = analyses.run("diff", store, 2, other=0)
        naive = store.rows(
            "with s as (select run, router % 3 as r, t.sequence % 48 as q, position, list_sort(list(expert)) as e "
            "from assignments a join tokens t using (run, token) group by all) "
            "select avg((a.e <> b.e)::int) from s a join s b using (r, q, position) where a.run = 0 and b.run = 1 and r = 1"
        )[0][0]
    changed = answer.figures("set changed", subset="")
    assert changed["value"].iloc[1] == pytest.approx(naive, rel=1e-9)
    fifths = answer.figures("set changed by margin", layer=0)["value"].tolist()
    assert fifths == sorted(fifths, reverse=True)
    assert fifths[0] > 0.1
    assert fifths[-1] == 0
    said = "Runs 2 and 0 decided alike in every one of 5760 decisions, 0 % [0, 0] in another set (24 documents; "
    assert same.verdict.sentence.startswith(said)


def test_measures_are_kept_once(tmp_path):
    path = tmp_path / "run.duckdb"
    synthetic.make(path, documents=6)
    with moescope.open(path) as store:
        answer = analyses.run("load", store)
    assert saving.save(path, answer) == saving.save(path, answer) == len(answer.frames["figures"])
    with moescope.open(path) as store:
        kept = store.rows("select count(*), any_value(extra->>'analysis') from measures")
        first = store.rows("select value from measures where name = 'load entropy (bits)' and router = 2 and subset = ''")
    assert kept == [(len(answer.frames["figures"]), "load")]
    assert first == [(answer.figures("load entropy (bits)", router=2, subset="")["value"].iloc[0],)]


def test_report_escapes_what_the_data_says(tmp_path):
    path = tmp_path / "run.duckdb"
    synthetic.make(path, documents=12, domains=("<script>alert(1)</script>", "b & c"))
    entries = {entry["name"]: entry for entry in analyses.catalogue()}
    with moescope.open(path) as store:
        answers = [(entries[name], analyses.run(name, store)) for name in ("load", "specialization")]
    object.__setattr__(answers[0][1], "notes", ["`limit` changes <that>"])
    refused = (entries["diff"], AnalysisError("no <other> run"))
    report = report_page.Report("Run 0: <b>", "words", [*answers, refused])
    page = report_page.page("A <title>", "words", [report, report])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "no &lt;other&gt; run" in page
    assert "<li><code>limit</code> changes &lt;that&gt;</li>" in page
    assert page.count("<svg") >= 5
    assert "://" not in page.replace("http://www.w3.org", "")
    assert "Run 0: &lt;b&gt;" in page


def test_predicted_ids_are_another_attribute(tmp_path):
    """Where the model predicts the id that comes next, both attributes say the same."""
    path = tmp_path / "run.duckdb"
    synthetic.make(path, documents=8, layers=(0,))
    assert any("kind predicted_id" in note for note in analyses.run("specialization", path).notes)
    following = """insert into token_labels select a.token, 'predicted_id', b.vocab_id
from tokens a join tokens b on b.sequence = a.sequence and b.position = a.position + 1"""
    change_store(path, lambda con: con.execute(following))
    answer = analyses.run("specialization", path)
    both = [answer.figures("vocabulary specialization", subset=f"{which} id") for which in ("next", "predicted")]
    assert both[0]["value"].tolist() == both[1]["value"].tolist()
    assert "predicted id" in set(answer.frames["vocabulary"]["attribute"])
    assert not any("predicted" in note for note in answer.notes)


LEVEL = (
    "I(label; expert) (bits)",
    "vocabulary specialization",
    "repetition, first choice",
    "I(expert; expert in the next layer) (bits)",
    "SRP",
    "co-activation, largest",
)


@pytest.mark.slow
@pytest.mark.sampled(0)  # the small part of it: test_calibration.py
def test_random_routing_yields_no_more_findings_than_stated(tmp_path):
    """Uneven but random routing, many runs: p values are level, and at FDR 5 % hardly a run has a specialist."""
    wanted: dict[str, list[float]] = {name: [] for name in LEVEL}
    path, runs, with_findings, with_words, pairs = tmp_path / "runs.duckdb", 14, 0, 0, 0
    for seed in range(runs):
        synthetic.make(path, synthetic.tilt(1.0), seed=100 + seed, input_seed=seed, documents=18, tokens=30, layers=(0, 1))
    with moescope.open(path) as store:
        for run in range(runs):
            special, structure = analyses.run("specialization", store, run), analyses.run("structure", store, run)
            figures = _answer.gather([special.frames["figures"], structure.frames["figures"]])
            for name, p in wanted.items():  # one p value for each of two routers, which choose independently
                p += figures[figures["name"] == name].drop_duplicates("router")["p"].tolist()
            with_findings += len(special.frames["specialists"]) > 0
            with_words += (special.frames["vocabulary"]["q"] <= 0.05).any()
            pairs += (structure.frames["pairs"]["q"] <= 0.05).any()
    level = {name: float(np.mean(np.array(p) <= 0.05)) for name, p in wanted.items()}
    assert min(len(p) for p in wanted.values()) >= runs
    assert max(level.values()) <= 0.1786, level  # 28 draws of a 5 % event: 5 or fewer in 99.7 % of tries
    assert max(with_findings, with_words, pairs) <= 3, (with_findings, with_words, pairs)  # of 14: in 99.6 % of tries
