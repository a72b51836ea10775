"""The report as a page that one prints: verdicts on top, what was not measured last, scales that can be compared."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from click.testing import CliRunner

import moescope
from moescope import analyses
from moescope.charts import fixed
from moescope.cli import main
from moescope.errors import AnalysisError
from moescope.store import Store, notes

QUICK = ("depth", "diff", "load", "modality", "regret")  # of which some answer


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """The report asks these analyses only, and it asks them."""

    def run_all(store: Store, run: int) -> Iterator[tuple[str, analyses.Answer | AnalysisError]]:
        for name in QUICK:
            try:
                yield name, analyses.run(name, store, run)
            except AnalysisError as refusal:
                yield name, refusal

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses, "run_all", run_all)
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, few: None) -> tuple[Path, str]:
    """A store of two runs, and its report."""
    folder = tmp_path_factory.mktemp("report")
    for seed in (0, 1):
        synthetic.make(folder / "run.duckdb", documents=12, layers=(0, 1), seed=seed)
    done = CliRunner().invoke(main, ["report", str(folder / "run.duckdb")])
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'run.html'}\n"), done.output
    return folder / "run.duckdb", (folder / "run.html").read_text()


def test_verdicts_first_and_what_was_not_measured_last(written: tuple[Path, str]) -> None:
    _, page = written
    heads = re.findall(r"<h[123][^>]*>(.*?)</h[123]>", page)
    assert (heads[0], heads[1], heads[-1]) == ("Routing", "What was found", "What was not measured")
    above = page.partition("<h2>What was found</h2>")[2].partition("</section>")[0]
    sections = re.findall(r'<h3 id="(run-\d-\w+)">.*?<p class="lead">(.*?)</p>', page, re.DOTALL)
    assert [anchor for anchor, _ in sections] == re.findall(r'<a href="#(.*?)">', above)  # each once, in the same order
    assert all(sentence in above for _, sentence in sections)
    assert {anchor[:5] for anchor, _ in sections} == {"run-0", "run-1"}
    for part in re.split(r"<h2[^>]*>.*?</h2>|<h3 id.*?</h3>", page.partition("</header>")[2])[1:]:
        assert len(re.sub(r"<[^>]*>|\s", "", part)) > 20 or 'id="part-' in part  # no bare heading


def test_a_question_that_no_run_answers_is_said_once(written: tuple[Path, str]) -> None:
    _, page = written
    last = page.rpartition("What was not measured")[2]
    titles = re.findall(r"<li><b>(.*?)</b> \(runs (.*?)\):", last)
    assert (len(titles) > 2, len({title for title, _ in titles}) == len(titles), {runs for _, runs in titles}) == (
        True,
        True,
        {"0, 1"},
    )


def test_sections_stand_below_their_run_and_the_page_names_no_folder(written: tuple[Path, str]) -> None:
    store, page = written
    found = re.findall(r"<(h[23])[^>]*>(Run \d+: .*?|Load and entropy)</", page.partition("</section>")[2])
    assert [(level, words[:5]) for level, words in found] == [
        ("h2", "Run 0"),
        ("h3", "Load "),
        ("h2", "Run 1"),
        ("h3", "Load "),
    ]
    assert (str(store.parent) in page, store.name in page) == (False, True)


def test_load_is_on_the_scale_of_the_dashboard(written: tuple[Path, str]) -> None:
    _, page = written
    assert page.count('"name": "heat_map"') == 2  # one of each run
    assert set(re.findall(r'"span": (\[.*?\])', page)) == {"[0.0, 1.0, 2.0]"}


def test_dressed_for_light_dark_and_paper(written: tuple[Path, str]) -> None:
    _, page = written
    assert ("prefers-color-scheme: dark" in page, "@media print" in page) == (True, True)
    assert 'fill="#FFFFFF"' not in page.partition("<body>")[2]  # charts stand on the page's own ground


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("asked", "shown"), [(["--run", "1"], {"1"}), (["--run", "1", "--run", "0", "--run", "1"], {"0", "1"})]
)
def test_runs_that_are_asked_for(written: tuple[Path, str], tmp_path: Path, asked: list[str], shown: set[str]) -> None:
    store, _ = written
    done = CliRunner().invoke(main, ["report", str(store), *asked, "-o", str(tmp_path / "a.html"), "--theme", "dark"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "a.html").read_text()
    assert set(re.findall(r'<h[23] id="run-(\d+)-', page)) == shown
    assert '<html lang="en" data-theme="dark">' in page


def test_a_run_that_is_not_there(written: tuple[Path, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(written[0]), "--run", "7", "-o", str(tmp_path / "a.html")])
    assert (done.exit_code in (1, 2), done.stderr.count("\n"), list(tmp_path.iterdir())) == (True, 1, [])


@pytest.mark.parametrize(
    ("values", "chance", "span"),
    [
        ([0.1, 0.2], [0.125, 0.125], (0.0, 0.125, 0.25)),
        ([0.124, 0.126], [0.125, None], (0.0, 0.125, 0.25)),  # as even as can be, and it looks so
        ([0.3, 0.7], None, (0.0, None, 1.0)),
        ([0.3, 0.7], [0.5, 0.25], (0.0, None, 1.0)),
        ([-0.02, 0.013], None, (-0.02, 0.0, 0.02)),
        ([3.0, 7.1], None, (0.0, None, 10.0)),
        ([0.0, 0.0], None, (0.0, None, 1.0)),
        ([], None, (0.0, None, 1.0)),
        ([float("nan")], [0.0], (0.0, None, 1.0)),
    ],
)
def test_no_scale_runs_from_the_smallest_to_the_largest(
    values: list[float], chance: list[float] | None, span: tuple[float, ...]
) -> None:
    known = None if chance is None else pd.Series(chance, dtype=float)
    assert fixed(pd.Series(values, dtype=float), known) == pytest.approx(span)


def test_notes_go_with_their_run(written: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own words on a run's experts, escaped, behind what was found; those on another run are that run's."""
    path, _ = written
    monkeypatch.setattr(analyses, "run_all", lambda *_: iter(()))  # nothing else is asked
    with moescope.open(path) as store:
        about, title = notes.expert(store, store.rows("select min(router) from routers where run = 1")[0][0], 2)
    notes.write(path, about, title, "likes <b>numbers</b>\n& years")
    for options, wanted in ((["--run", "0"], False), (["--run", "1"], True), ([], True)):
        done = CliRunner().invoke(main, ["report", str(path), "-o", str(path.with_name("noted.html")), *options])
        assert done.exit_code == 0, done.output
        page = path.with_name("noted.html").read_text()
        heads = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
        assert ("Notes" in heads) == wanted, options
        assert ("likes &lt;b&gt;numbers&lt;/b&gt;\n&amp; years" in page) == wanted
        assert not wanted or heads.index("Notes") == heads.index("What was found") + 1
    notes.file_of(path).write_text("no notes")
    done = CliRunner().invoke(main, ["report", str(path), "-o", str(path.with_name("noted.html"))])
    assert (done.exit_code, "cannot be read" in done.output) == (0, True)
    notes.file_of(path).unlink()


def test_demand_stands_beside_what_ran(recounted_store: Path) -> None:
    """In maps of runs that dropped tokens."""
    report = import_module("moescope.cli.ask.report")
    with moescope.open(recounted_store) as store:
        titles = [part.data["title"] for part in report._pictures(store, 0)]
    assert titles == [f"{what}, {stack}" for what in ("Demand", "Load") for stack in ("decoder", "encoder")]
