"""What the templates of chat_templates.py make of a conversation, in plain Python: pieces of text with the labels of each."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

Message = dict[str, Any]
Segment = tuple[str, str, int | None, bool]
"""Text, role, turn, whether it is reasoning."""

BOS, EOS = "<s>", "</s>"


def markup(text: str) -> Segment:
    return text, "template", None, False


def word(text: str, turn: int, message: Message, thought: bool = False) -> Segment:
    role: str = message["role"]
    return text, {"developer": "system"}.get(role, role), turn, thought


def told(message: Message) -> str:
    return str(message.get("content") or "")


def halves(text: str, turn: int, message: Message) -> Iterator[Segment]:
    """What begins with <think> in the assistant's own words."""
    lead = text.find("<think>")
    if lead < 0 or text[:lead].strip():
        yield word(text, turn, message)
        return
    begin = lead + len("<think>")
    end = text.find("</think>", begin) if "</think>" in text[begin:] else len(text)
    yield word(text[:begin], turn, message)
    yield word(text[begin:end], turn, message, thought=True)
    yield word(text[end:], turn, message)


def chatml(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    last = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=-1)
    for n, m in enumerate(messages):
        if m["role"] in ("system", "user"):
            yield from (markup(f"<|im_start|>{m['role']}\n"), word(told(m), n, m), markup("<|im_end|>\n"))
        elif m["role"] == "tool":
            begins, ends = (
                n == 0 or messages[n - 1]["role"] != "tool",
                n + 1 == len(messages) or messages[n + 1]["role"] != "tool",
            )
            yield markup(("<|im_start|>user" if begins else "") + "\n<tool_response>\n")
            yield word(told(m), n, m)
            yield markup("\n</tool_response>" + ("<|im_end|>\n" if ends else ""))
        else:
            yield from _chatml_answer(n, m, n > last)
    if ask:
        yield markup("<|im_start|>assistant\n")


def _chatml_answer(n: int, m: Message, recent: bool) -> Iterator[Segment]:
    said, thought = told(m), m.get("reasoning_content", "")
    if not thought and "</think>" in said:
        before, said = said[: said.index("</think>")], said[said.rindex("</think>") + 8 :].lstrip("\n")
        thought = before.rstrip("\n").rsplit("<think>", 1)[-1].lstrip("\n")
    yield markup("<|im_start|>assistant\n")
    if recent and thought:
        yield from (markup("<think>\n"), word(thought.strip("\n"), n, m, True), markup("\n</think>\n\n"))
        yield word(said.lstrip("\n"), n, m)
    else:
        yield from halves(said, n, m)
    for number, call in enumerate(m.get("tool_calls") or []):
        f = call["function"]
        yield from (markup(("\n" if number or said else "") + '<tool_call>\n{"name": "'), word(f["name"], n, m))
        yield from (markup('", "arguments": '), word(json.dumps(f["arguments"], ensure_ascii=False), n, m))
        yield markup("}\n</tool_call>")
    yield markup("<|im_end|>\n")


def llama(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    yield markup(BOS + "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n")
    first = messages[0]
    if first["role"] == "system":
        yield word(told(first).strip(), 0, first)
    yield markup("<|eot_id|>")
    for n, m in enumerate(messages):
        if n == 0 and m["role"] == "system":
            continue
        head = {"tool": "ipython"}.get(m["role"], m["role"])
        yield markup(f"<|start_header_id|>{head}<|end_header_id|>\n\n")
        if m.get("tool_calls"):
            f = m["tool_calls"][0]["function"]
            yield from (markup('{"name": "'), word(f["name"], n, m), markup('", "parameters": '))
            yield from (word(json.dumps(f["arguments"], ensure_ascii=False), n, m), markup("}"))
        else:
            yield word(told(m) if m["role"] == "tool" else told(m).strip(), n, m)
        yield markup("<|eot_id|>")
    if ask:
        yield markup("<|start_header_id|>assistant<|end_header_id|>\n\n")


def mistral(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    yield markup(BOS)
    for n, m in enumerate(messages):
        if m["role"] == "user":
            yield markup("[INST] ")
            if n == len(messages) - 1 and messages[0]["role"] == "system":
                yield from (word(told(messages[0]), 0, messages[0]), markup("\n\n"))
            yield from (word(told(m), n, m), markup("[/INST]"))
        elif m["role"] == "assistant":
            yield from (markup(" "), word(told(m).strip(), n, m), markup(EOS))


def gemma(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    yield markup(BOS)
    folded = messages[0]["role"] == "system"
    for n, m in enumerate(messages[folded:], int(folded)):
        yield markup(f"<start_of_turn>{'model' if m['role'] == 'assistant' else m['role']}\n")
        if folded and n == 1:
            yield from (word(told(messages[0]).strip(), 0, messages[0]), markup("\n\n"))
        yield from (word(told(m).strip(), n, m), markup("<end_of_turn>\n"))
    if ask:
        yield markup("<start_of_turn>model\n")


def deepseek(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    yield markup(BOS)
    yield from (word(told(m), n, m) for n, m in enumerate(messages) if m["role"] == "system")
    for n, m in enumerate(messages):
        if m["role"] == "user":
            yield from (markup("<｜User｜>"), word(told(m), n, m))
        elif m["role"] == "tool":
            yield from (markup("<｜tool▁output▁begin｜>"), word(told(m), n, m), markup("<｜tool▁output▁end｜>"))
        elif m["role"] == "assistant" and m.get("tool_calls"):
            yield from (markup("<｜Assistant｜>"), *halves(told(m), n, m), markup("<｜tool▁calls▁begin｜>"))
            for call in m["tool_calls"]:
                yield from (markup("<｜tool▁call▁begin｜>"), word(call["type"], n, m), markup("<｜tool▁sep｜>"))
                yield from (word(call["function"]["name"], n, m), markup("\n```json\n"))
                yield word(json.dumps(call["function"]["arguments"], ensure_ascii=False), n, m)
                yield markup("\n```<｜tool▁call▁end｜>")
            yield markup("<｜tool▁calls▁end｜><｜end▁of▁sentence｜>")
        elif m["role"] == "assistant":
            said = told(m) if n == len(messages) - 1 else told(m).split("</think>")[-1]
            after = n > 0 and messages[n - 1]["role"] == "tool"
            yield from (markup("" if after else "<｜Assistant｜>"), *halves(said, n, m), markup("<｜end▁of▁sentence｜>"))
    if ask:
        yield markup("<｜Assistant｜><think>\n")


def harmony(messages: Sequence[Message], ask: bool) -> Iterator[Segment]:
    called: tuple[str, int, Message] = ("", 0, {})
    for n, m in enumerate(messages):
        if n == 0 and m["role"] in ("developer", "system"):
            yield from (markup("<|start|>developer<|message|># Instructions\n\n"), word(told(m), n, m), markup("\n\n<|end|>"))
        elif m["role"] == "tool":
            yield from (markup("<|start|>functions."), word(*called), markup(' to=assistant<|channel|>commentary<|message|>"'))
            yield from (word(json.dumps(told(m), ensure_ascii=False)[1:-1], n, m), markup('"<|end|>'))
        elif m["role"] != "assistant":
            yield from (markup("<|start|>user<|message|>"), word(told(m), n, m), markup("<|end|>"))
        else:
            final, calls = n == len(messages) - 1 and not ask, m.get("tool_calls")
            thought = m.get("thinking") or (told(m) if calls else "")
            if thought and (calls or final):
                yield markup("<|start|>assistant<|channel|>analysis<|message|>")
                yield from (word(thought, n, m, True), markup("<|end|>"))
            if calls:
                f = calls[0]["function"]
                called = f["name"], n, m
                yield from (markup("<|start|>assistant to=functions."), word(f["name"], n, m))
                yield markup("<|channel|>commentary json<|message|>")
                yield from (word(json.dumps(f["arguments"], ensure_ascii=False), n, m), markup("<|call|>"))
            else:
                yield from (markup("<|start|>assistant<|channel|>final<|message|>"), word(told(m), n, m))
                yield markup("<|return|>" if final else "<|end|>")
    if ask:
        yield markup("<|start|>assistant")


STYLES: dict[str, Callable[[Sequence[Message], bool], Iterator[Segment]]] = {
    "chatml": chatml, "llama": llama, "mistral": mistral, "gemma": gemma, "deepseek": deepseek, "harmony": harmony,
}  # fmt: skip


def segments(style: str, messages: Sequence[Message], ask: bool) -> list[Segment]:
    """What a style says, pieces without text left out."""
    return [segment for segment in STYLES[style](messages, ask) if segment[0]]


def characters(said: Sequence[Segment]) -> list[tuple[str, str | None, str | None, str | None]]:
    """Each character with its labels."""
    return [
        (c, role, None if turn is None else str(turn), "true" if thought else None)
        for text, role, turn, thought in said
        for c in text
    ]


def joined_up(said: Sequence[Segment]) -> list[Segment]:
    """Neighbours with the same labels as one."""
    return [("".join(text for text, *_ in run), *key) for key, run in groupby(said, lambda s: s[1:])]


def recounted(pieces: Sequence[str], said: Sequence[Segment]) -> list[list[str | None]]:
    """Labels of byte-level tokens by their own bytes: the text that has most of a token's characters, or the first."""
    table = {letter: byte for byte, letter in bytes_to_unicode().items()}
    owner = [number for number, (text, *_) in enumerate(said) for _ in text]
    byte_owner = [place for place, c in enumerate("".join(text for text, *_ in said)) for _ in c.encode()]
    rows, at = [], 0
    for piece in pieces:
        size = len(bytes(table[letter] for letter in piece))
        places = sorted(set(byte_owner[at : at + size]))
        counts = Counter(owner[place] for place in places)
        best = max(counts.values())
        _, role, turn, thought = said[min(n for n, count in counts.items() if count == best)]
        rows.append([role, None if turn is None else str(turn), "true" if thought else None])
        at += size
    assert at == len(byte_owner)
    return rows
