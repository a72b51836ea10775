"""The command that does again what was tried."""

import json

from .asked import Asked


def command_of(asked: Asked, tokens: int) -> list[str]:
    """`moescope try` with everything that was asked, and so many tokens."""
    said = ["--messages", json.dumps(list(asked.messages), ensure_ascii=False)] if asked.messages else []
    said += ["--image", asked.picture or "picture.png"] if asked.image else []
    said += ["--tokens", str(tokens)] if asked.messages or asked.text.strip() else []
    said += [part for edit in asked.edits for part in ("--edit", edit)]
    said += ["--name", asked.name] if asked.name else []
    text = (
        ["--", asked.text] if asked.text.startswith("-") else [asked.text] if asked.text.strip() and not asked.messages else []
    )
    return ["moescope", "try", asked.model, *said, *text]
