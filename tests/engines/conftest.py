"""For tests of the recorder."""

import pytest

from moescope.engines.vllm import attach


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only rank."""
    monkeypatch.setattr(attach, "_first_rank", lambda: True)
