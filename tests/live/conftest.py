"""A desk with the shipped models, its endpoint as a client asks it, and the models themselves."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from common_live import TOKEN
from starlette.testclient import TestClient

from moescope.live.desk import Desk
from moescope.live.endpoint import answers

NAMES = ["mixtral", "switch", "vmoe"]


@pytest.fixture(scope="package")
def desk() -> Iterator[Desk]:
    made = Desk(NAMES)
    yield made
    folder = made.folder
    made.close()
    assert not folder.exists()


@pytest.fixture(scope="package")
def client(desk: Desk) -> TestClient:
    return TestClient(answers(desk, TOKEN), headers={"authorization": f"Bearer {TOKEN}"})


@pytest.fixture(scope="package")
def loaded(desk: Desk) -> Callable[[str], Any]:
    """The desk's own models, which are idle while they are traced."""

    def of(name: str) -> Any:
        while desk.about(name)["state"] == "loading":
            time.sleep(0.02)
        return desk.ready[name].loaded

    return of
