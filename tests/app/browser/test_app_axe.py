"""What axe-core finds on every page, on light and dark ground: nothing in what is ours."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from browser import IN_A_BROWSER, VIEWS, Eyes, address

pytestmark = IN_A_BROWSER
THEIRS = ["[data-testid=stSidebarNavItems]"]  # Streamlit's own list of pages: its items do not stand in their list
MORE = {  # what else each page shows, beside what it opens with
    "tokens": ["tokens?run=0&token=3&numbers=1"],
    "experts": ["experts?run=0&show=all", "experts?run=0&more=company", "experts?run=0&more=without"],
    "compare": ["compare?run=1"],
}


def violations(eyes: Eyes) -> list[str]:
    """Rule, what it says, and the element, of all that is found."""
    page: Any = eyes.page
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run({{exclude: {[[one] for one in THEIRS]!r}}}, {{resultTypes: ['violations']}})")
    return [
        f"{rule['id']}: {node['failureSummary'].splitlines()[-1].strip()} {node['html'][:160]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.sampled(4)
def test_pages_are_clean(view: str, scheme: str, looking: Callable[..., Eyes]) -> None:
    eyes = looking(color_scheme=scheme)
    for where in [address(view), *MORE.get(view, [])]:
        eyes.go(where)
        assert violations(eyes) == [], where
