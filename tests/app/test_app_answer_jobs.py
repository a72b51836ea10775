"""Analyses of large runs run apart from the page: started once, waited for, stopped, and said again where they failed."""

from typing import Any

import pytest
from pages import part

RUN = {"run": 4, "decisions": 1_000_000, "status": "complete"}


class Job:
    """A process that was asked for; `status` is set by the test."""

    def __init__(self, commands: list[list[str]], *_: Any) -> None:
        self.commands, self.status, self.begun = commands, "running", 0.0

    def start(self) -> "Job":
        return self

    def stop(self) -> None:
        self.status = "stopped"


@pytest.fixture
def jobs(recounted_shown: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    module, known, followed = part("parts.answer_jobs"), {}, []
    monkeypatch.setattr(module, "jobs", lambda: known)
    monkeypatch.setattr(module.ablation_run, "Job", Job)
    monkeypatch.setattr(module.st, "fragment", lambda *_, **__: lambda *key: followed.append(key))
    monkeypatch.setattr(module.st, "caption", lambda *_: None)
    monkeypatch.setattr(module.st, "button", lambda *_, **__: False)
    module.known, module.followed = known, followed
    return module


def test_an_answer_is_computed_once_and_others_wait(jobs: Any) -> None:
    assert jobs.over("a", "syntax", RUN, {"kinds": "upos"}) is False
    assert jobs.over("a", "syntax", RUN, {"kinds": "upos"}) is False
    assert jobs.over("b", "load", RUN, {}) is False
    assert list(jobs.known) == ["a"]
    command = jobs.known["a"].commands[0]
    assert (command[:2], command[3:]) == (["analyze", "syntax"], ["--run", "4", "-p", "kinds=upos"])
    assert jobs.followed == [("a", "syntax"), ("a", "syntax"), ("b", "load")]
    jobs.known["a"].status = "done"
    assert jobs.over("a", "syntax", RUN, {"kinds": "upos"}) is True
    assert jobs.over("b", "load", RUN, {}) is False
    assert list(jobs.known) == ["a", "b"]


@pytest.mark.parametrize(("status", "read"), [("done", True), ("failed", True), ("stopped", False)])
def test_how_it_ended(status: str, read: bool, jobs: Any) -> None:
    """A failure is asked once more by the page, which then says why; what was stopped is not begun again by itself."""
    jobs.over("a", "syntax", RUN, {})
    jobs.known["a"].status = status
    assert jobs.over("a", "syntax", RUN, {}) is read
    assert jobs.known["a"].status == status


@pytest.mark.parametrize(
    ("cache", "run", "apart"),
    [("here", {}, True), ("off", {}, False), ("here", {"decisions": 10}, False), ("here", {"status": "running"}, False)],
)
def test_where_nothing_is_kept_the_page_computes(
    cache: str, run: dict[str, Any], apart: bool, jobs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("MOESCOPE_CACHE", "off" if cache == "off" else str(tmp_path))
    assert jobs.apart(RUN | run) is apart
