"""One self-contained HTML page of answers about one run or several: verdicts first, then figures, tables and the SQL behind
each, and what was not measured last. It looks as the dashboard does, on light and dark ground and on paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import AnalysisError
from ...pictures import page as pages
from ...pictures.page import MARK, Part
from ...store.notes import Note
from .answer import Answer, Chart
from .verdicts import saying
from .verdicts.columns import COLUMNS, WORDS

__all__ = ["MARK", "Report", "page"]
ROWS = 60
STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
READING = """Every figure stands beside what chance gives by its definition, beside its mean under a null model that says
what was shuffled and what was held, and inside a 95 % interval from drawing whole documents (or images) again. A figure is
a finding when it lies outside its null and its q value (the false discovery rate over all rows of that kind) is small; an
interval alone says how well it is known, not that it is more than chance. Bars on the charts are intervals, dashed lines
chance. Maps whose neutral colour is chance go from 0 to twice chance, others from 0, or as far to either side of it."""
Answered = tuple[dict[str, Any], Answer | AnalysisError]


@dataclass(frozen=True)
class Report:
    """What is said of one run: its name, a line about it, its answers beside their entries of `catalogue()`, its pictures."""

    name: str
    words: str
    answers: Sequence[Answered]
    above: Sequence[Part] = ()
    number: int = 0
    notes: Sequence[Note] = ()  # the user's own words on its experts and tokens

    @property
    def given(self) -> list[tuple[dict[str, Any], Answer]]:
        """What was answered: findings first, in the order of the catalogue; load, where there is one, on top."""
        found = [(entry, answer) for entry, answer in self.answers if isinstance(answer, Answer)]
        return sorted(found, key=lambda one: (not _found(one[1]), one[0]["name"] != "load"))

    @property
    def refused(self) -> list[tuple[dict[str, Any], AnalysisError]]:
        """What could not be answered, and why."""
        return [(entry, answer) for entry, answer in self.answers if not isinstance(answer, Answer)]


def page(title: str, subtitle: str, runs: Sequence[Report], theme: str = "auto") -> str:
    """The page."""
    parts = [Part(html=_verdicts(runs) + _noted(runs))]
    for report in runs:
        parts += _run(report, heading=len(runs) > 1)
    last = f"<details><summary>How to read the figures</summary><p>{escape(READING)}</p>{_words()}</details>"
    parts += [Part(html=f"<section>{_refused(runs)}{last}</section>")]
    return pages.page(title, subtitle, parts, theme=theme, style=STYLE)


def _found(answer: Answer) -> bool:
    """Whether a figure that carries the verdict is a finding."""
    rows = answer.verdict.rows
    return "q" in rows and bool((rows["q"] <= saying.FDR).any())


def _verdicts(runs: Sequence[Report]) -> str:
    """What was found, sentence by sentence; each leads to its figures."""
    blocks = []
    for report in runs:
        lines = "".join(
            f'<li><a href="#{_anchor(report, entry)}">{escape(entry["title"])}</a> {_coded(answer.verdict.sentence)}</li>'
            for entry, answer in report.given
        )
        head = f'<h3>{escape(report.name)}</h3><p class="soft">{escape(report.words)}</p>' if len(runs) > 1 else ""
        blocks.append(
            head + (f'<ul class="verdicts">{lines}</ul>' if lines else '<p class="soft">Nothing could be asked of it.</p>')
        )
    return f"<section><h2>What was found</h2>{''.join(blocks)}</section>"


def _noted(runs: Sequence[Report]) -> str:
    """What somebody wrote down while looking."""
    blocks = []
    for report in runs:
        lines = "".join(
            f'<li><b>{escape(note.title)}</b> {escape(note.text)} <span class="soft">{escape(note.written[:10])}</span></li>'
            for note in report.notes
        )
        head = f"<h3>{escape(report.name)}</h3>" if len(runs) > 1 else ""
        blocks.append(f'{head}<ul class="notes">{lines}</ul>' if lines else "")
    return f"<section><h2>Notes</h2>{''.join(blocks)}</section>" if any(blocks) else ""


def _anchor(report: Report, entry: dict[str, Any]) -> str:
    return escape(f"run-{report.number}-{entry['name']}")


def _run(report: Report, heading: bool) -> Iterable[Part]:
    if heading and (report.given or report.above):
        yield Part(html=f"<h2>{escape(report.name)}</h2>")
    yield from report.above
    for entry, answer in report.given:
        yield Part(html=_section(report, entry, answer, 3 if heading else 2))


def _refused(runs: Sequence[Report]) -> str:
    """What was not measured: each question once, with the runs that could not answer and the first reason."""
    known: dict[str, list[tuple[Report, str]]] = {}
    for report in runs:
        for entry, why in report.refused:
            known.setdefault(entry["title"], []).append((report, str(why)))
    if not known:
        return ""
    lines = []
    for title, some in known.items():
        whose = f" (runs {', '.join(str(r.number) for r, _ in some)})" if len(runs) > 1 else ""
        lines.append(f"<li><b>{escape(title)}</b>{whose}: {_coded(some[0][1])}.</li>")
    listed = f'<details open><summary>{len(known)} questions</summary><ul class="small">{"".join(lines)}</ul></details>'
    return f"<h2>What was not measured</h2>{listed}"


def _words() -> str:
    rows = "".join(f"<tr><td>{escape(column)}</td><td>{escape(WORDS[column])}</td></tr>" for column in COLUMNS)
    return f'<div class="wide"><table class="frame">{rows}</table></div>'


def _section(report: Report, entry: dict[str, Any], answer: Answer, level: int) -> str:
    """An answer, below its run's heading where there are several."""
    notes = "".join(f"<li>{_coded(note)}</li>" for note in answer.notes)
    parts = [f'<section><h{level} id="{_anchor(report, entry)}">{escape(answer.title)}</h{level}>']
    parts.append(f'<p class="soft">{escape(entry["question"])}</p><p class="lead">{_coded(answer.verdict.sentence)}</p>')
    parts.append(f'<ul class="small">{notes}</ul>' if notes else "")
    parts.append(f'<div class="figures">{"".join(_figure(name, drawn) for name, drawn in answer.charts().items())}</div>')
    parts += [_table(name, frame, answer.sql[name]) for name, frame in answer.frames.items()]
    shown = set(answer.frames)
    parts += [_sql(f"SQL: {name}", sql) for name, sql in answer.sql.items() if name not in shown]
    parts.append(f"<details><summary>How it is measured</summary><pre>{escape(entry['method'])}</pre></details></section>")
    return "".join(parts)


def _figure(name: str, drawn: Chart) -> str:
    words = f"<figcaption>{escape(name)}</figcaption>{_sql('SQL', drawn.sql)}"
    return f'<figure><div class="chart">{_svg(drawn.chart)}</div>{words}</figure>'


def _svg(chart: Any) -> str:
    from ...charts import to_svg  # Altair is behind it

    return to_svg(chart.configure(background="transparent"))


def _coded(text: str) -> str:
    """Escaped, and what is in backquotes as code."""
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(escape(text).split("`")))


def _table(name: str, frame: pd.DataFrame, sql: str) -> str:
    some = frame.head(ROWS) if name != "figures" else frame[frame["expert"].isna()].head(ROWS)
    shown = some.drop(columns=[c for c in ("null", "source") if c in some])
    head = "".join(f"<th>{escape(str(column))}</th>" for column in shown)
    body = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in shown.itertuples(index=False))
    many = f"{len(frame)} rows" + (f", {len(some)} shown" if len(some) < len(frame) else "")
    table = f'<div class="wide"><table class="frame"><tr>{head}</tr>{body}</table></div>{_sources(frame)}{_sql("SQL", sql)}'
    return f"<details><summary>{escape(name)} ({many})</summary>{table}</details>"


def _sources(frame: pd.DataFrame) -> str:
    if not {"name", "estimator", "source", "null"} <= set(frame):
        return ""
    known = frame[["name", "estimator", "source", "null"]].drop_duplicates()
    rows = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in known.itertuples(index=False))
    head = "<tr><th>name</th><th>form</th><th>source</th><th>null</th></tr>"
    return f'<div class="wide"><table class="frame">{head}{rows}</table></div>'


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _sql(title: str, sql: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(sql)}</pre></details>"
