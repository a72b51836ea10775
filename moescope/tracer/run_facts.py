"""What is said of a run beside its rows: by who starts it, while it runs, and at its end."""

import time
from collections.abc import Mapping
from typing import Any

from ..contracts import Site
from ..models.describe import describe_model, versions
from ..proof import Proof
from ..weights import home
from .options import Options
from .run_header import RunHeader, run_header


class RunFacts:
    """Columns of `runs` that are not counted, and the run's warnings. `given`: columns by name, `warnings`, `model_name`."""

    def __init__(self, name: str | None, given: Mapping[str, Any] | None) -> None:
        self._given: dict[str, Any] = {"name": name, **(given or {})}
        self.warnings: list[str] = list(self._given.pop("warnings", []))
        self._told: dict[str, Any] = {}

    def tell(self, columns: Mapping[str, Any]) -> None:
        """Columns that are known only when the run ends."""
        self._told |= columns

    def header(self, model: Any, options: Options, proof: Proof, sites: list[Site]) -> RunHeader:
        """What there is to be said before the first row; what the model's description notes becomes warnings."""
        described, notes = describe_model(model, self._given.pop("model_name", None))
        self.warnings += notes
        run = {**self._given, "device": str(home(model)), "dtype": described["dtype"]}
        run |= {"capture": options.as_dict(), "versions": versions(), "proof": proof.as_dicts()}
        return run_header(run, described, sites)

    def final(self, status: str, warnings: list[str], times: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of the run's end; `warnings` come behind those that were noted on the way."""
        finished = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        return {**self._told, "status": status, "finished": finished, "warnings": self.warnings + warnings, **times}
