"""Mutants of SQL: rules over its words; in files of statements and in strings of Python."""

import re
from collections.abc import Iterator

from .mutant import Mutant

_WORDS = re.compile(r"\b(select|from|join|where|group by|order by|filter|over|union all|coalesce|sum)\b")
_SWAPS = [
    (r"\bleft join\b", "join"), (r"(?<!left )(?<!anti )(?<!semi )\bjoin\b", "left join"), (r"\banti join\b", "semi join"),
    (r"\bunion all\b", "union"), (r"\bdistinct ", ""), (r"\bsum\(", "avg("), (r"\bavg\(", "sum("), (r"\bsum\(", "max("),
    (r"\bmax\(", "min("), (r"\bmin\(", "max("), (r"\bleast\(", "greatest("), (r"\bgreatest\(", "least("),
    (r"\barg_max\(", "arg_min("), (r"\barg_min\(", "arg_max("), (r"\bcount\(\*\)", "min(1)"),
    (r"\blog2\(", "ln("), (r"\bsqrt\(", "("), (r"\bfloor\(", "ceil("), (r"\blead\(", "lag("), (r">=", ">"), (r"<=", "<"),
    (r"(?<![<>=-])>(?!=)", ">="), (r"<(?![>=])", "<="), (r"<>", "="), (r"(?<![<>!=:])=(?!=)", "<>"),
    (r"\bdesc\b", "asc"), (r"\bnot (?!null)", ""),
    (r" / ", " * "), (r" \+ ", " - "), (r" - ", " + "), (r" \* (?!from)", " / "), (r"\bis null\b", "is not null"),
    (r"\bis not null\b", "is null"), (r"\bdouble\b", "float"), (r"\busmallint\b", "utinyint"),
    (r"\band\b", "or"), (r"\bor\b", "and"), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
]  # fmt: skip
_DROPS = [
    ("filter dropped", r"\s*filter \((?:[^()]|\([^()]*\))*\)", ""),
    ("condition dropped", r"\band (?:not )?[\w.]+(?: ?(?:=|<>|<=|>=|<|>) ?[\w.']+)?", ""),
    ("where dropped", r"\bwhere (?=\S)", "where true or "),
    ("where dropped", r"\bwhere (?:not )?[\w.]+(?: ?(?:=|<>|<=|>=|<|>) ?[\w.'{}]+)?", "where true"),
    ("coalesce dropped", r"\bcoalesce\(([^(),]+(?:\([^()]*\)[^(),]*)?), [^()]+?\)", r"\1"),
    ("nullif dropped", r"\bnullif\(([^(),]+(?:\([^()]*\)[^(),]*)?), 0\)", r"\1"),
    ("key dropped", r"(\busing \([^()]*?), \w+\)", r"\1)"),
    ("partition dropped", r"(partition by (?:[\w.]+, )*[\w.]+), [\w.]+", r"\1"),
    ("order turned", r"(order by [\w.]+)(?! desc)", r"\1 desc"),
    ("constant + 1", r"(?<![\w.])(\d+)(?![\w.])", "+1"),
]


def is_sql(text: str) -> bool:
    """Whether a string reads like a statement or a good part of one."""
    return len(set(_WORDS.findall(text))) >= 2 or bool(re.search(r"\bselect\b.+\bfrom\b|count\(\*\) filter", text, re.S))


def variants(text: str) -> Iterator[tuple[str, str]]:
    """(rule, new text): each with one place changed."""
    for start, end, rule, new in _edits(text):
        yield rule, text[:start] + new + text[end:]


def mutants(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a file of statements, `scope` the view or table; comments stay."""
    for made in re.finditer(r"create (?:view|table) (\w+)(?: as)?(.*?);", text, re.S):
        first = made.start(2)
        for start, end, rule, new in _edits(re.sub(r"--[^\n]*", lambda m: " " * len(m[0]), made[2])):
            yield Mutant(path, first + start, first + end, new, rule, made[1])


def _edits(text: str) -> list[tuple[int, int, str, str]]:
    """(start, end, rule, new) of every rule at every place, in order."""
    found = [(m.start(), m.end(), "SQL: " + m[0].strip(), m.expand(new)) for old, new in _SWAPS for m in re.finditer(old, text)]
    for rule, old, new in _DROPS:
        for m in re.finditer(old, text):
            if new == "+1" and re.search(r"nullif\([^,]*, $", text[: m.start()]):
                continue  # a division by zero, told by the rule that drops it
            value = str(int(m[1]) + 1) if new == "+1" else m.expand(new)
            found.append((m.start(), m.end(), "SQL: " + rule, value))
    return sorted(set(found))
