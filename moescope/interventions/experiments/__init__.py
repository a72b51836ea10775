"""Questions to a live model on the inputs of a stored run, one file each: `moescope experiment NAME MODEL STORE`.

Add one: a module here with a docstring (first line `Title: the question`) and `run(here, **options) -> Found`; `here` is a
`Setting` (`_setting.py`). What it finds are figures as analyses give them, with chance, null and interval, and go into the
store's `measures`; the analysis that its module names as `ANALYSIS` reads them there, so that CLI, dashboard and report show
them without the model.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import torch

from ...analyses._shared.experiments import KEY, rows_of
from ...discover import modules
from ...errors import InputError
from ...models.loading import Loaded
from ...ranks import check_alone
from ...routers.engine_block import check_here
from ...store import open_store
from ...store.remote.addresses import local
from ...store.write.change import change_store
from ...words import check
from ._setting import Found, Setting, setting

__all__ = ["Found", "Setting", "catalogue", "experiment"]


def catalogue() -> list[dict[str, Any]]:
    """Name, title, question, method, options with defaults, and the analysis that shows it, of every experiment."""
    return [_entry(name, module) for name, module in modules("interventions.experiments").items()]


def _entry(name: str, module: Any) -> dict[str, Any]:
    first, _, rest = (module.__doc__ or name).strip().partition("\n")
    title, _, question = first.partition(": ")
    options = {p.name: p.default for p in list(inspect.signature(module.run).parameters.values())[1:]}
    said = {"name": name, "title": title, "question": question, "method": rest.strip()}
    return said | {"options": {k: None if v is inspect.Parameter.empty else v for k, v in options.items()},
                   "required": [k for k, v in options.items() if v is inspect.Parameter.empty],
                   "analysis": module.ANALYSIS}  # fmt: skip


def checked(name: str, options: dict[str, Any]) -> Any:
    """The module of an experiment. InputError where there is none, or it has no such option, or one of another type."""
    known = modules("interventions.experiments")
    if name not in known:
        raise InputError(f"there is no experiment {name!r}; there are: {', '.join(known)}")
    entry, hints = _entry(name, known[name]), get_type_hints(known[name].run, include_extras=True)
    if wrong := sorted(set(options) - set(entry["options"])):
        raise InputError(f"{name} has no option {wrong[0]!r}; it has: {', '.join(entry['options']) or 'none'}")
    if missing := [option for option in entry["required"] if option not in options]:
        raise InputError(f"{name} needs the option {missing[0]!r}; give it")
    for option, value in options.items():
        check(f"the option {option} of {name}", value, hints.get(option))
    return known[name]


def experiment(
    name: str,
    loaded: Loaded,
    store: str | Path,
    run: int | None = None,
    report: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Found:
    """Make one experiment on the inputs of a run (else the last complete one of this model); its figures go into the store.

    They take the place of what the same experiment left of that run. `report(done, of)` is called as it goes on. InputError,
    ModelError or StoreError say in one sentence what is wrong; then nothing is changed.
    """
    module, path = checked(name, options), local(store)
    check_alone(loaded.model, "experiment with it")
    check_here(loaded.model, "experiment with it")
    with open_store(path) as opened, torch.no_grad():
        here = setting(loaded, opened, run, report)
        found: Found = module.run(here, **options)
    if found.figures.empty:
        return found
    rows = rows_of(name, here.run, found.figures, found.more)

    def change(con: Any) -> None:
        con.execute(f"delete from measures where run = ? and extra->>'{KEY}' = ?", [here.run, name])
        con.register("experiment_rows", rows)
        con.execute("insert into measures by name from experiment_rows")
        con.unregister("experiment_rows")

    change_store(path, change)
    return found
