"""The harness of `make mutants`: its rules on small texts, and that it finds what it should change."""

from benchmarks.mutants import copies, python_rules, sql_rules
from benchmarks.mutants.__main__ import subjects
from benchmarks.mutants.mutant import source

PYTHON = '''"""Docs."""
LIMIT = 3


class Box:
    def take(self, a, b=True):
        """More docs."""
        if a < LIMIT and not b:
            return sorted(self.x[a], reverse=True)
        raise ValueError(f"{a} is more than {LIMIT}")
'''
MADE = [
    ("LIMIT*", "constant + 1", "LIMIT = 4"), ("LIMIT*", "constant - 1", "LIMIT = (2)"),
    ("Box.take", "true/false", "def take(self, a, b=False):"), ("Box.take", "and/or", "if (a < LIMIT or not b):"),
    ("Box.take", "condition dropped", "if (not b):"), ("Box.take", "condition dropped", "if (a < LIMIT):"),
    ("Box.take", "comparison", "if (a <= LIMIT) and not b:"), ("Box.take", "comparison", "if (a > LIMIT) and not b:"),
    ("Box.take", "not dropped", "if a < LIMIT and (b):"), ("Box.take", "order", "return (sorted(self.x[a]))"),
    ("Box.take", "mask or slice dropped", "return sorted((self.x), reverse=True)"),
    ("Box.take", "true/false", "return sorted(self.x[a], reverse=False)"),
]  # fmt: skip


def test_changes_of_python() -> None:
    """Each in one place; docstrings and the words of errors stay."""
    made = list(python_rules.mutants("x.py", PYTHON))
    found = [(m.scope, m.rule, m.changed(PYTHON)[1]) for m in made if m.rule != "condition fixed"]
    assert found == MADE
    assert [m.rule for m in made].count("condition fixed") == 2
    assert "+LIMIT = 4" in made[0].diff(PYTHON)


SQL = """create view v as
select r.k, -- the key, not the sum(x)
  sum(x) / nullif(count(*), 0) as y
from r left join s using (k, n) where not s.gone and x >= 2 group by all;
create table t (k uinteger, v double);"""


def test_changes_of_sql() -> None:
    """Joins, filters, sums, boundaries, keys; comments stay."""
    made = list(sql_rules.mutants("x.sql", SQL))
    assert {m.scope for m in made} == {"v", "t"}
    now = [m.changed(SQL)[1] for m in made]
    for line in (
        "avg(x) / nullif(count(*), 0) as y", "sum(x) * nullif(count(*), 0) as y", "sum(x) / count(*) as y",
        "from r join s using (k, n) where not s.gone and x >= 2 group by all;",
        "from r left join s using (k) where not s.gone and x >= 2 group by all;",
        "from r left join s using (k, n) where s.gone and x >= 2 group by all;",
        "from r left join s using (k, n) where not s.gone  group by all;",
        "from r left join s using (k, n) where not s.gone and x > 2 group by all;",
        "from r left join s using (k, n) where true and x >= 2 group by all;",
        "create table t (k uinteger, v float);",
    ):  # fmt: skip
        assert line in now, line
    assert all("the key, not the sum(x)" in m.applied(SQL) for m in made)


def test_every_pattern_finds_a_file_that_can_be_changed() -> None:
    for subject, files in subjects().items():
        for file in files[:2]:
            text = source(copies.ROOT, file)
            made = list((sql_rules if file.endswith(".sql") else python_rules).mutants(file, text))
            assert made or len(text) < 1500, (subject, file)
            assert all(m.applied(text) != text for m in made)
            assert made == list((sql_rules if file.endswith(".sql") else python_rules).mutants(file, text))
