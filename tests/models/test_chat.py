"""Roles of a rendered conversation, character by character and token by token, against templates written again in Python."""

import copy
import json
import re
from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from chat_segments import STYLES, Message, characters, joined_up, recounted, segments
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


def spelled(found: chat.Rendered) -> list[tuple[str, str | None, str | None, str | None]]:
    """The same of what was rendered."""
    assert [span.start for span in found.spans] == [0, *(span.end for span in found.spans[:-1])][: len(found.spans)]
    return [(c, *(span.labels.get(kind) for kind in LABELS)) for span in found.spans for c in found.text[span.start : span.end]]  # type: ignore[misc]


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
        found.append(
            {
                "role": draw(st.sampled_from(["system", "developer"] if style == "harmony" else ["system"])),
                "content": draw(said),
            }
        )
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

    @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
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


@pytest.mark.parametrize("style", STYLES)
def test_every_token_has_its_role(style: str) -> None:
    @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(conversations(style))
    def holds(messages: list[Message]) -> None:
        words = speaks(style)
        found = chat.tokens(words, chat.render(words, messages, None, "made, row 0"), "made, row 0")
        assert found.ids == words.apply_chat_template(messages, tokenize=True)["input_ids"]
        wanted = recounted(words.convert_ids_to_tokens(found.ids), joined_up(segments(style, messages, False)))
        columns = [found.labels.get(kind, [None] * len(found.ids)) for kind in LABELS]
        assert [list(row) for row in zip(*columns)] == wanted

    holds()


@pytest.mark.parametrize("make", ["metaspace", "wordpiece", "slow", "special"])
def test_tokenizers_of_every_make(make: str) -> None:
    """No token without a role, and those that have characters have theirs; special tokens are the template's."""
    words = copy.deepcopy(tokenizer("bytes" if make == "special" else make))
    words.chat_template = TEMPLATES["chatml"]
    if make == "special":
        words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    messages = [
        {"role": "system", "content": " ab\n"},
        {"role": "user", "content": "cd  c\n\n"},
        {"role": "assistant", "content": "a"},
    ]
    found = chat.tokens(words, chat.render(words, messages, None, "made, row 0", generate=False), "made, row 0")
    assert found.ids == words.apply_chat_template(messages, tokenize=True)["input_ids"]
    owner = characters(segments("chatml", messages, False))
    assert None not in found.labels["role"]
    for (start, end), role in zip(found.offsets, found.labels["role"]):
        roles = Counter(who for _, who, _, _ in owner[start:end])
        assert end <= start or roles[role] == max(roles.values())
    assert make == "wordpiece" or [r for r, _ in groupby(found.labels["role"])] == [
        "template",
        "system",
        *["template", "user"],
        "template",
        "assistant",
        "template",
    ]
    pieces = words.convert_ids_to_tokens(found.ids)
    assert {role for piece, role in zip(pieces, found.labels["role"]) if piece.startswith("<|im_")} <= {"template"}


WAYS = {  # a template, what it gives of a message "aBa ß" of the user's, and of whom each character is
    "slice": ("<{{ m.content[1:3] }}>", "<Ba>", ".uu."),
    "reversed": ("{{ m.content | reverse }}!", "ß aBa!", "uuuuu."),
    "one by one": ("{% for c in m.content %}{{ c }}-{% endfor %}", "a-B-a- -ß-", "u.u.u.u.u."),
    "upper": ("a{{ m.content | upper }}", "aABA SS", ".uuuuuu"),
    "replaced": ("{{ m.content | replace('a', 'xy') }}", "xyBxy ß", "uuuuuuu"),
    "replaced by its method": ("{{ m.content.replace('a', '') }}.", "B ß.", "uuu."),
    "into another": ("{{ 'say X!' | replace('X', m.content) }}", "say aBa ß!", "....uuuuu."),
    "into another by its method": ("{{ 'say X!'.replace('X', m.content) }}", "say aBa ß!", "....uuuuu."),
    "split": ("{% for p in m.content.split('B') %}[{{ p }}]{% endfor %}", "[a][a ß]", ".u..uuu."),
    "split at white space": ("{{ m.content.split() | join('+') }}", "aBa+ß", "uuu.u"),
    "parted": ("{{ m.content.partition('B') | join('|') }}", "a|B|a ß", "u.u.uuu"),
    "joined": ("{{ [m.content, 'x'] | join('-') }}", "aBa ß-x", "uuuuu.."),
    "joined by its method": ("{{ '-'.join([m.content, 'x', m.content]) }}", "aBa ß-x-aBa ß", "uuuuu...uuuuu"),
    "joined attributes": ("{{ messages | map(attribute='content') | join('|') }}", "aBa ß", "uuuuu"),
    "macro": ("{% macro say(x) %}({{ x }}){% endmacro %}{{ say(m.content) }}", "(aBa ß)", ".uuuuu."),
    "block": ("{% set x %}({{ m.content }}){% endset %}{{ x | trim }}", "(aBa ß)", ".uuuuu."),
    "filtered block": ("{% filter upper %}({{ m.content }}){% endfilter %}", "(ABA SS)", ".uuuuuu."),
    "generation": ("{% generation %}({{ m.content }}){% endgeneration %}", "(aBa ß)", ".uuuuu."),
    "tilde": ("{{ '(' ~ m.content ~ 1 ~ ')' }}", "(aBa ß1)", ".uuuuu.."),
    "json": ("{{ m.content | tojson }}", '"aBa ß"', ".uuuuu."),
    "json of a message": ("{{ {'x': m.content, 'n': m.n} | tojson }}", '{"x": "aBa ß", "n": 3}', f"{'.' * 7}uuuuu{'.' * 8}u."),
    "indented json": ("{{ m.list | tojson(indent=2) }}", "[\n  true,\n  null\n]", "u" * 18),
    "number and truth": ("{{ m.n }}{{ m.list[0] }}{{ m.list[1] is none }}", "3TrueTrue", "uuuuu...."),
    "indented": ("-{{ m.content | indent(2) }}", "-aBa ß", ".uuuuu"),
    "default": ("{{ m.none | default(m.content, true) }}", "aBa ß", "uuuuu"),
    "twice": ("{{ m.content }}{{ m.content }}", "aBa ßaBa ß", "uuuuuuuuuu"),
    "dropped": ("x{% if m.content == 'aBa ß' %}y{% endif %}", "xy", ".."),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_template_does(way: str) -> None:
    template, text, owners = WAYS[way]
    words = copy.deepcopy(tokenizer("bytes"))
    words.chat_template = "{% set m = messages[0] %}" + template
    found = chat.render(words, [{"role": "user", "content": "aBa ß", "n": 3, "list": [True, None]}], None, "made, row 0")
    roles = {"u": "user", ".": "template"}
    assert (found.text, [role for _, role, _, _ in spelled(found)]) == (text, [roles[letter] for letter in owners])


ONE = [{"role": "user", "content": "a"}]
REFUSED: dict[str, tuple[str | None, list[Message], str]] = {
    "no template": (None, ONE, "made, row 7 is a conversation, but the tokenizer has no chat template"),
    "not well-formed": ("{% for %}", ONE, "made, row 7: the chat template refuses this conversation"),
    "order": (TEMPLATES["mistral"], ONE + ONE, r"refuses this conversation \(Conversation roles must alternate"),
    "role": (TEMPLATES["chatml"], [{"role": "critic", "content": "a"}], r"refuses this conversation \(Unexpected role c"),
    "fails": ("{{ messages[0].content + 1 }}", ONE, "applying the chat template to made, row 7 failed: "),
    "undefined": ("{{ messages[0].name.first }}", ONE, "made, row 7: the chat template refuses"),
    "formatted": ("{{ '<%s>' | format(messages[0].content) }}", ONE, "row 7: roles cannot be told, for the chat template"),
    "formatted by its method": ("{{ '<{}>'.format(messages[0].content) }}", ONE, "row 7: roles cannot be told"),
    "percent": ("{{ '<%s>' % messages[0].content }}", ONE, "row 7: roles cannot be told"),
    "drawn": ("{{ range(99999) | random }}", ONE, "row 7: roles cannot be told, for the chat template gives another text"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_a_sentence(what: str) -> None:
    template, messages, sentence = REFUSED[what]
    words = copy.deepcopy(tokenizer("bytes"))
    words.chat_template = template
    with pytest.raises(InputError, match=sentence):
        chat.render(words, messages, None, "made, row 7")


def test_no_tokenizer_and_a_tokenizer_of_another_make() -> None:
    for words, why in ((None, "there is no tokenizer"), (object(), "object has no chat templates")):
        with pytest.raises(InputError, match=f"made, row 7 is a conversation, but {why}"):
            chat.render(words, ONE, None, "made, row 7")


@pytest.mark.parametrize("style", STYLES)
def test_parts_are_texts(style: str) -> None:
    """A list of parts with text is read where a template reads lists, and is one text where it fails on them or drops them."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b c"}]}]
    found = chat.render(speaks(style), parts, None, "made, row 0")
    assert spelled(found) == characters(segments(style, [{"role": "user", "content": "ab c"}], False))


@pytest.mark.parametrize("style", STYLES)
def test_a_last_message_of_the_assistant_is_gone_on_with(style: str) -> None:
    """As in Transformers' own pipelines, which call it continue_final_message."""
    words = speaks(style)
    messages = [*ONE, {"role": "assistant", "content": "b c"}]
    found = chat.render(words, messages, None, "made, row 0", generate=True)
    assert found.text == words.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert found.next == {"role": "assistant", "turn": "1"}
    assert spelled(found)[-3:] == [(c, "assistant", "1", None) for c in "b c"]


def test_tools_are_the_systems() -> None:
    """Their schemas are part of what the model is told, not of anybody's turn."""
    schema = {"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}
    found = chat.render(speaks("chatml"), ONE, [schema], "made, row 0")
    said = {found.text[s.start : s.end]: dict(s.labels) for s in found.spans}
    assert said[json.dumps(schema)] == {"role": "system"}


MADE: dict[str, tuple[str, list[Message], str, str]] = {  # style, conversation, what is made, which of it is thought
    "a thought of its own": ("chatml", ONE, "<think>ba</think>dc", ".tt..."),
    "that does not end": ("chatml", ONE, "<think>ba", ".tt"),
    "none": ("chatml", ONE, "ba<|im_end|>", "..."),
    "that the template begins": ("deepseek", ONE, "ba</think>dc", "tt..."),
    "that the answer began": ("chatml", [*ONE, {"role": "assistant", "content": "<think>a"}], "b</think>c", "t.."),
    "that the answer ended": ("deepseek", [*ONE, {"role": "assistant", "content": "<think>a</think>"}], "bc", ".."),
    "the user's": ("chatml", [{"role": "user", "content": "<think>"}], "ba", ".."),
    "a channel": ("harmony", ONE, "<|channel|>analysis<|message|>ba<|end|>dc", "." * 10 + "tt..."),
}


@pytest.mark.parametrize("case", MADE)
def test_what_is_made_is_thought_between_marks(case: str) -> None:
    """Token by token; marks are special tokens, as in models that think."""
    style, messages, said, wanted = MADE[case]
    words = copy.deepcopy(tokenizer("bytes"))
    words.add_special_tokens({"additional_special_tokens": [m for m in MARKUP if m.startswith("<")]})
    words.chat_template = TEMPLATES[style]
    rendered = chat.render(words, messages, None, "made, row 0", generate=True)
    ahead = chat.following(words, rendered.marks, rendered.thinking)
    assert ahead is not None
    state, found = ahead.begins, ""
    ids = [i for piece in re.split("(analysis)", said) for i in words.encode(piece, add_special_tokens=False)]
    for one in ids:
        state, thinks = ahead.step(state, one)
        found += "t" if thinks else "."
    assert found == wanted


def test_marks_of_several_tokens_are_not_followed() -> None:
    """That a thought ends is then known too late."""
    rendered = chat.render(speaks("chatml"), ONE, None, "made, row 0", generate=True)
    assert chat.following(speaks("chatml"), rendered.marks, rendered.thinking) is None
