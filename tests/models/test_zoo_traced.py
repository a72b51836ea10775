"""Small models by their names: traced as a user would, with the data that they read, and seen on the dashboard's pages."""

from pathlib import Path

import pytest
from pages import nothing, offered, opened

import moescope
from moescope.errors import InputError
from moescope.models import zoo
from moescope.models.loading import load
from moescope.tracer import trace

TEXTS = ["The router looked at the token.", "Some tokens run more often than others do.", "A third text. " * 150]  # windows


def check_pages(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, which lists every router; Conditions where forwards were told some, Depth where routers decide of it, else Load

    (not where all is token choice, on which Load is seen everywhere).
    """
    with moescope.open(store) as there:
        kinds = there.rows("select kind from routers")
        told = there.rows("select distinct kind from conditions order by 1")
    page = opened(store, "tokens", monkeypatch)
    assert (len(offered(page, "Layer")), nothing(page)) == (len(kinds), [])
    assert len(page.get("bidi_component")) >= 1
    if told:
        page = opened(store, "conditions", monkeypatch)
        assert [option.split()[0] for option in offered(page, "Condition")] == [kind for (kind,) in told]
        assert (len(offered(page, "Router")), nothing(page)) == (len(kinds), [])
    elif ("depth",) in kinds:
        page = opened(store, "depth", monkeypatch)
        assert (len(page.dataframe), nothing(page)) == (2, [])
    elif set(kinds) != {("token_choice",)}:
        assert {"share of assignments", "share of what ran"} & set(offered(opened(store, "load", monkeypatch), "Value"))


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.system(name).READS == "text"])
@pytest.mark.sampled(2)
def test_texts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is there, with a decision of every token, text or batch that some router looks at."""
    run = trace(name, TEXTS, tmp_path / "a.duckdb", batch_size=2)
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select run, status from runs") == [(run, "complete")]
        units = dict(store.rows("select unit, count(*) from tokens group by all"))
        decided = store.rows("select t.unit, count(distinct token) from decisions join tokens t using (token) group by all")
        texts = store.rows("select count(distinct text) from sequences where text is not null")
    assert dict(decided).keys() == units.keys()
    assert set(units) == {"batch"} or texts[0][0] >= 3
    assert dict(decided).get("text", 0) <= units.get("text", 0)
    check_pages(tmp_path / "a.duckdb", monkeypatch)


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.system(name).READS == "noise"])
@pytest.mark.sampled(4)
def test_pictures_at_five_timesteps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 255, (4, 28, 28), np.uint8)
    np.savez(tmp_path / "pictures.npz", images=images)
    trace(name, tmp_path / "pictures.npz", tmp_path / "a.duckdb", batch_size=4)
    with moescope.open(tmp_path / "a.duckdb") as store:
        times = store.rows("select distinct value from conditions where kind = 'timestep' order by 1")
        tokens = store.rows("select count(distinct sequence), count(*) % 4 from tokens")
    assert times == [(100.0,), (300.0,), (500.0,), (700.0,), (900.0,)]
    assert tokens == [(4, 0)]
    check_pages(tmp_path / "a.duckdb", monkeypatch)


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.system(name).READS == "other"])
def test_what_takes_more_than_texts_or_pictures_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=rf"{name} takes"):
        trace(name, TEXTS, tmp_path / "a.duckdb")
    assert list(tmp_path.iterdir()) == []
    model = load(name).model
    with moescope.Tracer(model, tmp_path / "a.duckdb"):
        model(**zoo.example_of(model))  # type: ignore[arg-type]
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select status from runs") == [("complete",)]
    check_pages(tmp_path / "a.duckdb", monkeypatch)


def test_a_folder_of_that_name_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mor").mkdir()
    with pytest.raises(moescope.errors.ModelError, match="mor is no model"):
        load("mor")
