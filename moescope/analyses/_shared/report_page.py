"""One self-contained HTML page of answers: figures as inline SVG, words on how to read them, and the SQL behind each."""

from html import escape
from typing import Any

import pandas as pd

from ...errors import AnalysisError
from .answer import COLUMNS, WORDS, Answer

ROWS = 60
MARK = '<meta name="generator" content="moescope">'
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --paper: #ffffff; --wash: #f5f7f9; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; }
h2 { margin: 3.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 2rem; }
.lead { font-size: 1.15rem; margin: .25rem 0 1rem; } .soft { color: var(--soft); } nav a { margin-right: 1rem; }
figure { margin: 1.5rem 0; overflow-x: auto; } figcaption { color: var(--soft); font-size: .9rem; }
svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { background: var(--wash); padding: .8rem; overflow-x: auto; font-size: .82rem; white-space: pre-wrap; }
"""
READING = """Every figure stands beside what chance gives by its definition, beside its mean under a null model that says
what was shuffled and what was held, and inside a 95 % interval from drawing whole documents (or images) again. A figure is
a finding when it lies outside its null and its q value (the false discovery rate over all rows of that kind) is small; an
interval alone says how well it is known, not that it is more than chance. Bars on the charts are intervals, dashed lines
chance."""


def page(title: str, subtitle: str, answers: list[tuple[dict[str, Any], Answer | AnalysisError]]) -> str:
    """The page; `answers` pairs entries of `catalogue()` with what came of them."""
    given = [(entry, answer) for entry, answer in answers if isinstance(answer, Answer)]
    refused = [(entry, answer) for entry, answer in answers if not isinstance(answer, Answer)]
    links = "".join(f'<a href="#{escape(entry["name"])}">{escape(entry["title"])}</a>' for entry, _ in given)
    parts = [f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p><nav>{links}</nav>']
    parts.append(f"<p>{escape(READING)}</p>{_words()}")
    parts += [_section(entry, answer) for entry, answer in given]
    if refused:
        rows = "".join(f"<li><b>{escape(entry['title'])}</b>: {escape(str(why))}.</li>" for entry, why in refused)
        parts.append(f"<h2>What this store cannot answer</h2><ul>{rows}</ul>")
    head = f'<meta charset="utf-8">{MARK}<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def _words() -> str:
    rows = "".join(f"<tr><td>{escape(column)}</td><td>{escape(WORDS[column])}</td></tr>" for column in COLUMNS)
    return f"<details><summary>What the columns mean</summary><table>{rows}</table></details>"


def _section(entry: dict[str, Any], answer: Answer) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in answer.notes)
    parts = [f'<h2 id="{escape(entry["name"])}">{escape(answer.title)}</h2>']
    parts.append(f'<p class="soft">{escape(entry["question"])}</p><p class="lead">{_coded(answer.verdict.sentence)}</p>')
    parts.append(f"<ul>{notes}</ul>" if notes else "")
    parts.append(f"<details><summary>How it is measured</summary><pre>{escape(entry['method'])}</pre></details>")
    parts += [
        f"<figure>{_svg(drawn.chart)}<figcaption>{escape(name)}</figcaption>{_sql('SQL', drawn.sql)}</figure>"
        for name, drawn in answer.charts().items()
    ]
    parts += [_table(name, frame, answer.sql[name]) for name, frame in answer.frames.items()]
    shown = set(answer.frames)
    parts += [_sql(f"SQL: {name}", sql) for name, sql in answer.sql.items() if name not in shown]
    return "".join(parts)


def _svg(chart: Any) -> str:
    from ...charts import to_svg  # Altair is behind it

    return to_svg(chart)


def _coded(text: str) -> str:
    """Escaped, and what is in backquotes as code."""
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(escape(text).split("`")))


def _table(name: str, frame: pd.DataFrame, sql: str) -> str:
    some = frame.head(ROWS) if name != "figures" else frame[frame["expert"].isna()].head(ROWS)
    shown = some.drop(columns=[c for c in ("null", "source") if c in some])
    head = "".join(f"<th>{escape(str(column))}</th>" for column in shown)
    body = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in shown.itertuples(index=False))
    many = f"{len(frame)} rows" + (f", {len(some)} shown" if len(some) < len(frame) else "")
    table = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>{_sources(frame)}{_sql("SQL", sql)}'
    return f"<details><summary>{escape(name)} ({many})</summary>{table}</details>"


def _sources(frame: pd.DataFrame) -> str:
    if not {"name", "estimator", "source", "null"} <= set(frame):
        return ""
    known = frame[["name", "estimator", "source", "null"]].drop_duplicates()
    rows = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in known.itertuples(index=False))
    return f'<div class="wide"><table><tr><th>name</th><th>form</th><th>source</th><th>null</th></tr>{rows}</table></div>'


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _sql(title: str, sql: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(sql)}</pre></details>"
