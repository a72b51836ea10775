"""Roles of a rendered conversation, character by character and token by token, against templates written again in Python."""

from collections.abc import Sequence
from typing import Any

import pytest
from chat_segments import STYLES, Message, Segment
from chat_templates import MARKUP, TEMPLATES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from texts import tokenizer

from moescope.errors import InputError
from moescope.models import chat

CALLS = {"chatml", "llama", "deepseek", "harmony"}
PIECES = ["a", "b c", " ", "\n", "\n\n", "é", "ß", "日", "😀", "👩‍💻", "Hi.", '"quoted"', "{{ x }}", "\\n", "\t", *MARKUP]
LABELS = ("role", "turn", "reasoning")


def speaks(style: str, make: str = "bytes") -> Any:
    """A tokenizer with the template of a style; the slow one has no special tokens of its own that are in texts."""
    made = tokenizer(make)
    made.chat_template = TEMPLATES[style]
    return made


def segments(style: str, messages: Sequence[Message], ask: bool) -> list[Segment]:
    return [segment for segment in STYLES[style](messages, ask) if segment[0]]


def characters(said: Sequence[Segment]) -> list[tuple[str, str | None, str | None, str | None]]:
    """Each character with its labels."""
    return [
        (c, role, None if turn is None else str(turn), "true" if thought else None)
        for text, role, turn, thought in said
        for c in text
    ]


def spelled(found: chat.Rendered) -> list[tuple[str, str | None, str | None, str | None]]:
    """The same of what was rendered."""
    assert [span.start for span in found.spans] == [0, *(span.end for span in found.spans[:-1])][: len(found.spans)]
    return [
        (c, *(span.labels.get(kind) for kind in LABELS)) for span in found.spans for c in found.text[span.start : span.end]
    ]  # type: ignore[misc]


def arguments() -> st.SearchStrategy[Any]:
    leaf = st.one_of(st.none(), st.booleans(), st.integers(-9, 99), st.sampled_from([0.5, -1.25]), st.sampled_from(PIECES))
    return st.dictionaries(st.sampled_from(["x", "é", "<think>"]), st.one_of(leaf, st.lists(leaf, max_size=2)), max_size=3)


@st.composite
def conversations(draw: Any, style: str) -> list[Message]:
    """Messages that a template of this style takes, of whatever texts."""
    pieces = [p for p in PIECES if style != "harmony" or p != "<|channel|>"]
    text = st.lists(st.sampled_from(pieces), max_size=4).map("".join)
    told = draw(st.lists(text, min_size=1, max_size=3))
    said = st.sampled_from(told) | text  # texts that repeat each other
    found: list[Message] = []
    if draw(st.booleans()):
        found.append({"role": draw(st.sampled_from(["system", "developer"] if style == "harmony" else ["system"])), "content": draw(said)})
    for number in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "content": draw(said)})
        if style in CALLS and draw(st.booleans()):
            function = {"name": draw(st.sampled_from(["f", "look_up"])), "arguments": draw(arguments())}
            content = {"content": draw(said)} if style != "llama" and draw(st.booleans()) else {}
            call = {"id": "1", "type": "function", "function": function}
            found.append({"role": "assistant", **content, "tool_calls": [call], **draw(thoughts(style, said))})
            found += [{"role": "tool", "content": draw(said)} for _ in range(draw(st.integers(1, 2)))]
        if draw(st.booleans()) or number < 2:
            found.append({"role": "assistant", "content": draw(said), **draw(thoughts(style, said))})
        else:
            break
    return found


def thoughts(style: str, said: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    name = {"chatml": "reasoning_content", "harmony": "thinking"}.get(style)
    some = said.filter(bool).map(lambda text: {name: text})
    return st.one_of(st.just({}), some) if name else st.just({})


@pytest.mark.parametrize("style", STYLES)
def test_every_character_has_its_role(style: str) -> None:
    """Whatever is said: markup itself, the same again, nothing, spaces, emoji."""

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(conversations(style))
    def holds(messages: list[Message]) -> None:
        words = speaks(style)
        ask = messages[-1]["role"] in ("user", "tool")
        found = chat.render(words, messages, None, "made, row 0", generate=ask)
        wanted = segments(style, messages, ask)
        assert found.text == "".join(text for text, *_ in wanted)
        assert found.text == words.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        assert spelled(found) == characters(wanted)
        assert found.next == {"role": "assistant", "turn": str(len(messages))}

    holds()
