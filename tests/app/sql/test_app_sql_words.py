"""The SQL field in a browser: completion of tables, views and columns, words in colours; and it stays a plain field."""

from collections.abc import Callable
from typing import Any

from browser import IN_A_BROWSER, Eyes

pytestmark = IN_A_BROWSER
CASES = {  # what is typed: what is offered first, and what Tab makes of it
    "select * from exp": ("expert_load", "select * from expert_load"),
    "select assig": ("assignments", "select assignments"),
    "select e.sha from expert_load e": ("share", "select e.share from expert_load e"),
    "select expert_load.assi": ("assignments", "select expert_load.assignments"),
    "sel": ("select", "select"),
}


def opened(looking: Callable[..., Eyes]) -> tuple[Eyes, Any]:
    eyes = looking()
    eyes.go("sql?run=0")
    eyes.page.locator(".ms-typed").wait_for()
    return eyes, eyes.page.get_by_label("Query")


def test_names_are_completed_and_the_field_runs(looking: Callable[..., Eyes]) -> None:
    eyes, area = opened(looking)
    for typed, (first, made) in CASES.items():
        head, behind, _ = typed.partition(" from expert_load e")
        area.fill(typed if behind else head[:-1])
        area.evaluate(f"area => area.setSelectionRange({len(head) - 1}, {len(head) - (not behind)})")
        area.press_sequentially(head[-1])  # at the end of the word, whatever stands behind it
        assert eyes.page.locator(".ms-words li span").first.inner_text() == first, typed
        area.press("Tab")
        assert (area.input_value(), eyes.page.locator(".ms-words").is_hidden()) == (made, True)
    area.fill("select 'exp")
    area.press_sequentially("e")
    assert eyes.page.locator(".ms-words").is_hidden()  # in a string nothing is completed
    area.fill("select 'exp' as x, expert -- exp\nfrom expert_load limit 3")
    parts = eyes.page.locator(".ms-sql").first.locator("span")
    found = [(p.get_attribute("class"), p.inner_text()) for p in parts.all()]
    assert ("string", "'exp'") in found
    assert ("comment", "-- exp") in found
    assert ("table", "expert_load") in found
    assert ("word", "select") in found
    assert ("number", "3") in found
    area.press("Control+Enter")
    eyes.page.get_by_text("3 rows × 2 columns").wait_for()
    eyes.sound()
