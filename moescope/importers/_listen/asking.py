"""What is asked of an engine beside what the client asked, and what of the answer is not the client's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PATHS = ("/v1/completions", "/v1/chat/completions", "/generate", "/inference/v1/generate")
_ROUTING = ("routed_experts", "prompt_routed_experts", "routed_experts_start_len", "routed_experts_dtype")
_IDS = ("token_ids", "prompt_token_ids")


@dataclass
class Asked:
    """One request: as it goes on to the engine (`body`), as it came (`given`), and what the client wants to see."""

    body: bytes
    given: bytes
    stream: bool
    routing: bool  # whether the client asked for routing itself
    ids: bool
    usage: bool  # whether the client would get a last event of usage
    text: str | None = None
    start: int | None = None
    labels: dict[str, str] = field(default_factory=dict)


def asked(body: bytes, path: str) -> Asked | None:
    """The request, with routing and ids asked for; None for a body that is no JSON object, which passes as it is."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    stream = value.get("stream") is True
    given = value.get("stream_options")
    options: dict[str, Any] = given if isinstance(given, dict) else {}
    start = value.get("routed_experts_prompt_start")
    found = Asked(
        body, body, stream, value.get("return_routed_experts") is True or start is not None,
        value.get("return_token_ids") is True, not stream or options.get("include_usage") is True, _text(value),
        start if isinstance(start, int) and not isinstance(start, bool) else None,
    )  # fmt: skip
    more: dict[str, Any] = {"return_routed_experts": True}
    if path.startswith("/v1/"):
        more["return_token_ids"] = True
        if stream:
            more["stream_options"] = {**options, "include_usage": True}
    found.body = json.dumps({**value, **more}).encode()
    return found


def _text(value: Mapping[str, Any]) -> str | None:
    """What the client wrote: the prompt, or the messages."""
    for name in ("prompt", "text"):
        if isinstance(value.get(name), str):
            return str(value[name])
    messages = value.get("messages")
    if not isinstance(messages, list):
        return None
    return "\n".join(f"{m.get('role')}: {_content(m.get('content'))}" for m in messages if isinstance(m, dict)) or None


def _content(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
    return "" if value is None else str(value)


def labels_of(header: str | None) -> dict[str, str]:
    """Labels from a header: `kind=value, kind=value`, or a bare word, which is a `label`."""
    found: dict[str, str] = {}
    for part in (header or "").split(","):
        kind, equals, value = part.strip().partition("=")
        if kind and (value or not equals):
            found[kind.strip() if equals else "label"] = value.strip() if equals else kind
    return found


def without(value: Any, ask: Asked) -> Any:
    """An answer, or an event of one, less what the client did not ask for; None for an event that would not have come."""
    if not isinstance(value, dict):
        return value
    if ask.stream and not ask.usage and value.get("choices") == [] and value.get("usage") is not None:
        return None
    names = (() if ask.routing else _ROUTING) + (() if ask.ids or "choices" not in value else _IDS)
    value = _less(value, names)
    if isinstance(value.get("choices"), list):
        value["choices"] = [_extended(_less(c, names), names) if isinstance(c, dict) else c for c in value["choices"]]
    if isinstance(value.get("meta_info"), dict):
        value["meta_info"] = _less(value["meta_info"], names)
    if ask.stream and not ask.usage and value.get("usage", 0) is None:
        del value["usage"]  # engines say null in every event where the last has it
    return _extended(value, names)


def _less(value: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key not in names}


def _extended(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Without SGLang's own part, where nothing of it is left."""
    own = value.get("sgl_ext")
    if isinstance(own, dict):
        rest = _less(own, names)
        value["sgl_ext"] = rest
        if not rest:
            del value["sgl_ext"]
    return value
