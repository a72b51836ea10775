"""Conversations: lists of messages, as OpenAI's ({"role", "content"}) or ShareGPT's ({"from", "value"}) files have them.

What a template makes of them is not known here: it comes with a tokenizer. Messages are handed on as they are, with the fields
that templates of some models read (tool_calls, name, reasoning_content ...).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .options import Options

COLUMNS = ("messages", "conversations", "conversation")
SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant",
            "function_call": "assistant", "observation": "tool", "function_response": "tool"}  # fmt: skip
TEMPLATE = "template"  # what markup is labelled with

Message = Mapping[str, Any]


def column(columns: Sequence[str], options: Options) -> str | None:
    """The column that holds conversations, if it is asked for or if there is no text. InputError if it is asked for in vain."""
    there = next((name for name in COLUMNS if name in columns), None)
    if options.chat and there is None and options.text_column is None:
        raise InputError(
            f"{options.flag('chat')} asks for conversations, but there is no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]} "
            f"(columns: {', '.join(columns) or 'none'}): name one with {options.flag('text_column')}."
        )
    return there if options.chat or not {"text", "input_ids"} & set(columns) else None


def talks(column: str, cell: Any, options: Options) -> bool:
    """Whether a cell of a column is to be read as a conversation."""
    return options.chat or column in COLUMNS or is_messages(cell)


def is_messages(value: Any) -> bool:
    """Whether this is a list of dicts."""
    listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object)
    return listed and len(value) > 0 and all(isinstance(one, Mapping) for one in value)


def messages(cell: Any, column: str, where: str) -> tuple[Message, ...]:
    """The messages of a cell; InputError naming the first that is none."""
    given = parsed(cell)
    if isinstance(given, Mapping) and given and all(isinstance(v, list | tuple | np.ndarray) for v in given.values()):
        given = [dict(zip(given, row)) for row in zip(*given.values())]  # how data sets keep lists of dicts
    if not isinstance(given, list | tuple | np.ndarray):
        raise InputError(
            f"{where}: column {column!r} holds {type(cell).__name__} values, not conversations; give lists of messages, "
            '{"role": ..., "content": ...}.'
        )
    if not len(given):
        raise InputError(f"{where}: the conversation is empty; give it a message, or leave it out.")
    return tuple(_message(one, number, where) for number, one in enumerate(given))


def tools(record: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    """What a row says of tools beside its messages: JSON schemas, in the column `tools`."""
    given = parsed(record.get("tools"))
    if given is None or (isinstance(given, float) and given != given):
        return ()
    if not isinstance(given, list | tuple | np.ndarray) or not all(isinstance(tool, Mapping) for tool in given):
        raise InputError(f"{where}: column 'tools' holds {type(given).__name__} values, not lists of schemas; repair it.")
    return tuple(given)


def parsed(cell: Any) -> Any:
    """A cell, or what it says in JSON, as tables of texts have it."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _message(given: Any, number: int, where: str) -> Message:
    which = f"{where}: message {number}"
    if not isinstance(given, Mapping):
        raise InputError(f'{which} is {type(given).__name__}, not {{"role": ..., "content": ...}}; repair it.')
    found = {str(key): _plain(value) for key, value in given.items()}
    if "role" not in found and "from" in found:
        speaker = found.pop("from")
        found = {"role": SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker, **found}
        found["content"] = found.pop("value", None)
    role, content = found.get("role"), found.get("content")
    if not isinstance(role, str) or not role.strip():
        raise InputError(f"{which} has no role (its fields: {', '.join(given) or 'none'}); say who speaks.")
    if role == TEMPLATE:
        raise InputError(f"{which} has the role {TEMPLATE!r}, by which moescope calls markup; name it otherwise.")
    if content is None and not any(found.get(name) for name in ("tool_calls", "function_call", "reasoning_content")):
        raise InputError(f"{which}, of {role}, has no content (its fields: {', '.join(given)}); say what is said.")
    if content is not None and not isinstance(content, str | list):
        raise InputError(f"{which}, of {role}, has {type(content).__name__} content; give a text, or a list of parts.")
    if isinstance(content, list) and not all(isinstance(part, Mapping) for part in content):
        raise InputError(f'{which}, of {role}, holds parts that are no {{"type": ..., ...}}; repair them.')
    _check(found, which)
    return found


def _plain(value: Any) -> Any:
    """Arrays as lists, all the way down."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple | np.ndarray) else value


def _check(value: Any, which: str) -> None:
    """InputError for text that UTF-8 cannot say."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{which} holds half a surrogate pair, which is no character; repair the text.") from None
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check(inner, which)
