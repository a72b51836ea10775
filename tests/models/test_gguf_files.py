"""What a GGUF says before it is loaded, and what is no GGUF, cut, dense, or lies about its sizes; llama.cpp takes no part."""

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import written_gguf

from moescope.errors import InputError, ModelError, NotMoEError
from moescope.models.gguf import library
from moescope.models.gguf.header import is_gguf, read_header
from moescope.models.loading import load


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_gguf.write(written_gguf.model_of("glm4_moe"), tmp_path_factory.mktemp("gguf") / "glm.gguf", words=True)


def test_layers_and_facts(written: Path) -> None:
    header = read_header(written)
    assert (header.architecture, header.routed, header.fact("expert_count"), header.fact("expert_used_count")) == (
        "glm4moe", [1, 2], 8, 2
    )  # fmt: skip
    assert (header.fact("expert_gating_func"), header.fact("expert_weights_norm"), header.fact("nothing", 7)) == (2, True, 7)
    assert header.parameters == sum(tensor.size for tensor in header.tensors.values())
    assert header.tensors["blk.1.ffn_down_exps.weight"].shape == (8, 64, 32)
    assert "tokenizer.ggml.tokens" not in header.facts


def test_quantized_tensors_are_counted_as_numbers(tmp_path: Path) -> None:
    model = written_gguf.model_of("mixtral")
    plain, packed = (read_header(written_gguf.write(model, tmp_path / f"{kind}.gguf", kind)) for kind in ("F32", "Q8_0"))
    assert plain.parameters == packed.parameters
    assert packed.kinds["Q8_0"] > packed.kinds["F32"] > 0


def test_parts(tmp_path: Path, written: Path) -> None:
    first, second = (tmp_path / f"m-{n:05}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(written.read_bytes())
    with pytest.raises(ModelError, match=r"split into 2 files, and m-00002-of-00002.gguf is missing"):
        read_header(first)
    second.write_bytes(written.read_bytes())
    assert read_header(first).routed == [1, 2]
    with pytest.raises(InputError, match=r"part 2 of 2: name the first"):
        read_header(second)


def _said(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dense(tmp_path: Path) -> None:
    path = written_gguf.write(written_gguf.model_of("mixtral"), tmp_path / "d.gguf", expert_count=None)
    with pytest.raises(NotMoEError, match="is a dense model"):
        read_header(path)


def test_no_gguf(tmp_path: Path) -> None:
    for name, content in {"a.gguf": b"hello", "b.gguf": b"", "c.gguf": b"PK\3\4 and more than that"}.items():
        (tmp_path / name).write_bytes(content)
        assert is_gguf(tmp_path / name)
        assert "is no GGUF file" in _said(tmp_path / name)
    assert not is_gguf(tmp_path)
    assert not is_gguf(tmp_path / "nothing.gguf")


def test_cut_anywhere(tmp_path: Path, written: Path) -> None:
    whole, path = written.read_bytes(), tmp_path / "cut.gguf"
    places = [4, 8, 23, 24, 25, *random.Random(0).sample(range(26, len(whole)), 40), len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place])
        assert "is no whole GGUF file" in _said(path), place


def _field(kind: int, value: bytes, count: int = 1) -> bytes:
    return (
        b"GGUF" + struct.pack("<IQQ", 3, 0, count) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", kind) + value + b"\0" * 64
    )


SIZES = {
    "fields": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + b"\0" * 64,
    "tensors": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + b"\0" * 64,
    "a text": _field(8, struct.pack("<Q", 2**62)),
    "a list of texts": _field(9, struct.pack("<IQ", 8, 2**59)),
    "a list of numbers": _field(9, struct.pack("<IQ", 6, 2**61)),
    "a list of bytes": _field(9, struct.pack("<IQ", 0, 2**63)),
    "lists of lists": _field(9, struct.pack("<IQ", 9, 2**40)),
    "an unknown kind": _field(77, b""),
    "a version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0) + b"\0" * 64,
    "dimensions": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"t" + struct.pack("<I", 2**31) + b"\0" * 64,
    "offsets": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"t"
    + struct.pack("<IQIQ", 1, 2**40, 0, 2**62) + b"\0" * 64,
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_not_believed(case: str, tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    path.write_bytes(SIZES[case])
    assert "is no whole GGUF file" in _said(path)


def test_noise_in_the_header_is_one_sentence(tmp_path: Path, written: Path) -> None:
    whole, path, noise = written.read_bytes(), tmp_path / "noise.gguf", random.Random(1)
    said: list[str] = []
    for _ in range(30):
        data = bytearray(whole)
        for _ in range(4):
            data[noise.randrange(4, 9000)] = noise.randrange(256)
        path.write_bytes(data)
        said.append("")
        with suppress(ModelError, InputError):
            read_header(path)
            continue
        said[-1] = _said(path)
    assert any(said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"quantize": "8bit"}, "only those take --quantize"), ({"attn": "eager"}, "only those take --attn"),
        ({"device_map": "auto"}, "only those are spread"), ({"adapter": "."}, "leave --adapter out"),
        ({"dtype": "bfloat16"}, "float32 or float16"),
    ],
)  # fmt: skip
def test_options_of_other_models(asked: dict[str, str], said: str, written: Path) -> None:
    with pytest.raises((InputError, ModelError), match=said):
        load(written, **asked)


def test_without_llama_cpp(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(
        ModelError, match=r"takes llama-cpp-python, which is not here; install it: pip install 'moescope\[gguf\]'"
    ):
        load(written, device="cpu")
    library.library.cache_clear()
