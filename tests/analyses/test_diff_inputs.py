"""Router diff compares runs of the same inputs, and says so where they are not."""

import duckdb
import pytest
from synthetic import make

from moescope import analyses
from moescope.errors import AnalysisError


def test_other_tokens_in_the_same_places_are_refused(tmp_path):
    store = tmp_path / "s.duckdb"
    make(store, documents=6, tokens=12, layers=(0,), input_seed=0)
    make(store, documents=6, tokens=12, layers=(0,), input_seed=1)
    with pytest.raises(AnalysisError, match=r"did not read the same tokens: 1.. of the 144 in the same place"):
        analyses.run("diff", store)


def test_another_family_is_compared_only_when_named(tmp_path):
    store = tmp_path / "s.duckdb"
    make(store, documents=6, tokens=12, layers=(0,), name="a")
    make(store, documents=6, tokens=12, layers=(0,), name="b", seed=1)
    con = duckdb.connect(str(store))
    con.execute("insert into models by name (select 99 as model, 'other' as name, 'switch' as family from models limit 1)")
    con.execute("update runs set model = 99 where run = 1")
    con.close()
    with pytest.raises(AnalysisError, match="with a model of its family"):
        analyses.run("diff", store, 1)
    named = analyses.run("diff", store, 1, other=0).figures("set changed", subset="")
    assert list(named["n"]) == [144]
