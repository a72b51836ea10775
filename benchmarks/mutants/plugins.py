"""What pytest is told inside a trial: which tests in which order; and what it tells: the first failure, or who called what."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from .seen import Seen


class Chosen:
    """Runs the tests of a list in its order, and writes down the first that fails."""

    def __init__(self, result: Path, tests: Sequence[str]) -> None:
        self._result = result
        self._place = {test: number for number, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out what is not of the list."""
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda i: self._place[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test failed."""
        if report.failed:
            self._say(report)

    def pytest_collectreport(self, report: Any) -> None:
        """A file of tests could not be imported."""
        if report.failed:
            self._say(report)

    def _say(self, report: Any) -> None:
        crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or str(report.longrepr)
        self._result.write_text(json.dumps({"test": report.nodeid, "why": crash[:400]}))


class Recorder:
    """Writes down, for every test, whether it passed, its seconds, and the functions that it called."""

    def __init__(self, result: Path, tree: Path, programs: Path) -> None:
        self._result, self._programs = result, programs
        self._seen = Seen(str(tree))
        self._tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        """One test, with its fixtures."""
        self._seen.found = set()
        self._tests[item.nodeid] = {"seconds": 0.0, "passed": True}
        self._seen.start()
        yield
        sys.settrace(None)
        self._tests[item.nodeid]["functions"] = sorted(self._seen.found)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended."""
        about = self._tests[report.nodeid]
        about["seconds"] += report.duration
        about["passed"] &= not report.failed
        about["ran"] = about.get("ran", False) or (report.when == "call" and report.passed)

    def pytest_sessionfinish(self) -> None:
        """Add what programs called that the tests started, and write all of it."""
        for file in os.listdir(self._programs):
            said = json.loads((self._programs / file).read_text())
            test = self._tests.get(said["test"], {"functions": []})
            test["functions"] = sorted({*map(tuple, test["functions"]), *map(tuple, said["functions"])})
        self._result.write_text(json.dumps({"tests": self._tests}))
