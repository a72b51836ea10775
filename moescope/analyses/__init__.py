"""Questions to a store, one file each: `answer = moescope.analyses.run("load", store)`.

Add one: put a file here (or an entry point in the group `moescope.analyses` of another package). Files that start with an
underscore are helpers. An analysis is a module with

* a docstring: first line `Title: the question`, then formulas, their sources, and what the nulls hold constant;
* `run(store, run=None, **options) -> Answer`; every option has a default, unless it cannot (then `--all` leaves it out);
* a verdict, given to the Answer: one sentence of what follows, how large, with which interval, on how many documents, against
  which null and over which family of q, and what it does not show (`verdict.verdict`, in the words of `saying`);
* `charts(answer) -> dict[str, Chart]`, given to the Answer as `draw`; each holds what it draws, and the SQL behind that;
* `beside(store, run, **options) -> list[int]`, if it compares runs: those that its answer depends on (`kept`).

What it takes from `_shared` and from `moescope.statistics`:

* `scope.scope(store, run)`: the run that is meant, its routers, its documents; `.units_sql(kind)` numbers the documents;
* `document_counts.tables(scope, sql)`: rows (unit, router, label, expert, n) as one array (units, labels, experts) per router;
* `statistics`: bootstrap weights over documents, intervals, permutations, p values, FDR, entropies, mutual information;
* `answer.figures(...)`: tidy rows with value, chance, null, interval, p, q, n and units; `answer.Answer` holds them, with the
  query of each of its frames;
* `chart_forms.layers`, `heatmap` and `bars(frame, title, sql, ...)`: a Chart, which keeps the very rows that it draws.

Count in SQL by document first; bootstrap and permute the counts, never the rows. What the store cannot say is an
`AnalysisError` (nothing can be said) or a note (something cannot), never a NaN without a word.
"""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_type_hints

from ..discover import modules
from ..errors import AnalysisError
from ..foreign import doing
from ..store import Store, open_store
from ..store.engines.shared import SharedStore
from ..words import check
from ._shared.answer import Answer, Chart
from ._shared.keeping import kept
from ._shared.scope import candidates, chosen, groups, scope

__all__ = ["Answer", "Chart", "catalogue", "depends", "known", "run", "run_all"]


def catalogue() -> list[dict[str, Any]]:
    """Name, title, question, options and defaults of every analysis."""
    return [_entry(name, module) for name, module in modules("analyses").items()]


def _entry(name: str, module: Any) -> dict[str, Any]:
    first, _, rest = (module.__doc__ or name).strip().partition("\n")
    title, _, question = first.partition(": ")
    parameters = list(inspect.signature(module.run).parameters.values())[2:]
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    options = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {
        "name": name,
        "title": title,
        "question": question,
        "method": rest.strip(),
        "options": options,
        "required": required,
    }


def run(name: str, store: Store | str | Path, run: int | None = None, *, fresh: bool = False, **options: Any) -> Answer:
    """Ask one analysis, of `run` or of the newest run that can answer (`chosen` then says which, and which others there are).

    What was computed before is read (see `_shared/keeping`), unless `fresh`. AnalysisError if there is none of that name, no
    such option, or the store cannot say; InputError if an option is of another type or out of range.
    """
    there = modules("analyses")
    if name not in there:
        raise AnalysisError(f"there is no analysis {name!r}; there are: {', '.join(there)}")
    entry = _entry(name, there[name])
    if wrong := set(options) - set(entry["options"]) - set(entry["required"]):
        raise AnalysisError(f"{name} has no option {sorted(wrong)[0]!r}; it has: {', '.join(entry['options']) or 'none'}")
    if missing := [option for option in entry["required"] if option not in options]:
        raise AnalysisError(f"{name} needs the option {missing[0]!r}; give it")
    hints = get_type_hints(there[name].run, include_extras=True)
    for option, value in options.items():
        check(f"the option {option} of {name}", value, hints.get(option))
    options = entry["options"] | options
    if isinstance(store, Store):
        return _asked(there[name], store, run, options, fresh)
    with open_store(store) as opened:
        return _asked(there[name], opened, run, options, fresh)


def _asked(module: Any, store: Store, run: int | None, options: dict[str, Any], fresh: bool) -> Answer:
    """Of the run that is meant, or of the newest that can answer."""
    refused: dict[int, AnalysisError] = {}
    runs = candidates(store)
    for one in [scope(store, run).run] if run is not None else runs:
        with doing(f"asking {module.__name__.rpartition('.')[2]} about {store.path}"):
            try:
                with _noting(store) as said:
                    answer = kept.answered(module, store, one, options, fresh)
            except AnalysisError as refusal:
                refused[one] = refusal
                continue
            answer.notes = [*answer.notes, *said]
            answer.groups = groups(store, one)
            answer.verdict = answer.verdict.ready(store, one)
            answer.chosen = chosen(runs, one, refused) if run is None else ""
            return answer
    raise next(iter(refused.values()))


def _noting(store: Store) -> AbstractContextManager[list[str]]:
    """What there is to be said of how a store's queries are answered while this is open."""
    return store.noting() if isinstance(store, SharedStore) else nullcontext([])


def known(name: str, store: Store, run: int, **options: Any) -> bool:
    """Whether this answer was computed before, so that `run` reads it."""
    return kept.there(*_question(name, store, run, options))


def depends(name: str, store: Store, run: int, **options: Any) -> str:
    """What the answer depends on, as a name: the content of the run, options and code; changes whenever one of these does."""
    return kept.key(*_question(name, store, run, options)) or f"{name} {run} {store.opened}"


def _question(name: str, store: Store, run: int, options: dict[str, Any]) -> tuple[Any, Store, int, dict[str, Any]]:
    module = modules("analyses")[name]
    return module, store, run, _entry(name, module)["options"] | options


def run_all(store: Store, run: int | None = None, fresh: bool = False) -> Iterator[tuple[str, Answer | AnalysisError]]:
    """Ask every analysis that needs no option; a refusal comes as the AnalysisError that says why."""
    for entry in catalogue():
        if entry["required"]:
            continue
        try:
            yield entry["name"], _asked(modules("analyses")[entry["name"]], store, run, entry["options"], fresh)
        except AnalysisError as refusal:
            yield entry["name"], refusal
