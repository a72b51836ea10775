"""The tokenizer inside a GGUF, as moescope asks tokenizers: ids of a text, the text of ids."""

import ctypes
from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from .engine import Engine

_NONE, _CONTROL = 0, 1 << 3  # LLAMA_VOCAB_TYPE_NONE, LLAMA_TOKEN_ATTR_CONTROL


class GGUFTokenizer:
    """llama.cpp's own, not one made of it."""

    is_fast = False
    chat_template = None

    def __init__(self, engine: Engine) -> None:
        self._engine, self._api, self._vocab = engine, engine.api, engine.vocab
        attributes = [self._api.llama_vocab_get_attr(self._vocab, i) for i in range(engine.size)]
        self.all_special_ids = [i for i, attribute in enumerate(attributes) if attribute & _CONTROL]

    @classmethod
    def of(cls, engine: Engine) -> "GGUFTokenizer | None":
        """None for a file without a vocabulary."""
        return None if engine.api.llama_vocab_type(engine.vocab) == _NONE else cls(engine)

    def __len__(self) -> int:
        return self._engine.size

    def __call__(self, text: str, add_special_tokens: bool = True, **__: Any) -> dict[str, list[int]]:
        """{"input_ids"}; marks of the beginning and end as the file says. InputError where it cannot."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        for _ in range(2):
            found = (ctypes.c_int32 * room)()
            count = self._api.llama_tokenize(self._vocab, data, len(data), found, room, add_special_tokens, False)
            if count >= 0:
                return {"input_ids": list(found[:count])}
            room = -count
        raise InputError(f"llama.cpp makes no tokens of a text of {len(data):,} bytes; leave it out")

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """As the vocabulary writes them."""
        return [(self._api.llama_vocab_get_text(self._vocab, int(i)) or b"").decode("utf-8", "replace") for i in ids]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Their text."""
        return b"".join(self._piece(int(i)) for i in ids).decode("utf-8", "replace").replace("\0", "\ufffd")

    def _piece(self, token: int) -> bytes:
        room = 64
        for _ in range(2):
            found = ctypes.create_string_buffer(room)
            count = int(self._api.llama_token_to_piece(self._vocab, token, found, room, 0, True))
            if count >= 0:
                return found.raw[:count]
            room = -count
        return b""

    def get_vocab(self) -> dict[str, int]:
        """{token: id}."""
        return {text: i for i, text in enumerate(self.convert_ids_to_tokens(range(len(self))))}

    @property
    def pad_token_id(self) -> int | None:
        """None where the file names none."""
        found = int(self._api.llama_vocab_pad(self._vocab))
        return found if found >= 0 else None
