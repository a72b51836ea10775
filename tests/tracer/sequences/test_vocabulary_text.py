"""How the store spells a vocabulary id: as the tokenizer decodes it, or by its piece where that says nothing or is broken."""

from typing import Any

import pytest
from small import mixtral

from moescope.tracer.sequences.token_rows import Identity


class Tokenizer:
    """Four ids: a word behind a space, half a letter, nothing that can be seen, an end."""

    all_special_ids = (3,)
    pieces = ("▁the", "<0xE6>", "▁", "</s>")
    decoded = (" the", "\ufffd", "", "</s>")

    def decode(self, ids: list[int]) -> str:
        return "".join(self.decoded[i] for i in ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[i] for i in ids]


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [2], [3, 0]])
def test_text_of_ids(ids: list[int]) -> None:
    writer: Any = None
    identity = Identity.of(writer, mixtral(), Tokenizer())
    assert identity.text_of is not None
    assert identity.text_of(ids) == [[" the", "<0xE6>", "▁", "</s>"][i] for i in ids]
    assert identity.special.tolist() == [3]
    assert Identity.of(writer, mixtral(), None).text_of is None
