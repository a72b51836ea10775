"""What is around captures: packed, cut, empty and foreign files, labels, numbers beside a model, names of the hub."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import pytest

import moescope
from moescope import errors
from moescope.importers._core.model import of_config, read_model
from moescope.importers._core.words import Labels, Tokenizer

FILES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "gz that was cut": ("a.jsonl.gz", lambda raw: gzip.compress(raw)[:-400], "was cut off"),
    "gz with other bytes": ("a.jsonl.gz", lambda raw: gzip.compress(raw)[:150] + bytes(range(60)) * 20, "is damaged"),
    "gz with other bytes at its end": (
        "a.jsonl.gz", lambda raw: (g := gzip.compress(raw))[:-300] + bytes(40) + g[-260:], "is damaged",
    ),
    "no gz": ("a.jsonl.gz", lambda raw: raw, "no .gz file"),
    "gz of nothing": ("a.jsonl.gz", lambda raw: gzip.compress(b""), "is empty"),
    "bz2 that was cut": ("a.jsonl.bz2", lambda raw: bz2.compress(raw)[:-40], "was cut off"),
    "no bz2": ("a.jsonl.bz2", lambda raw: raw, "no .bz2 file"),
    "nothing": ("a.jsonl", lambda raw: b"", "is empty"),
    "blanks": ("a.jsonl", lambda raw: b" \n\n\r\n" * 40, "is empty"),
    "the last line cut": ("a.jsonl", lambda raw: raw[:-300], "line 3 of a.jsonl is no JSON"),
    "a line twice": ("a.jsonl", lambda raw: raw + raw.split(b"\n")[1] + b"\n", "would count double"),
}  # fmt: skip


@pytest.mark.sampled(11)
@pytest.mark.parametrize("kind", [None, "vllm"])
@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read_are_refused_and_leave_nothing(case: str, kind: str | None, tmp_path: Path) -> None:
    """Also behind lines that came in: no store of nothing is left."""
    made = captures.served(n=3)
    raw = captures.lines(tmp_path / "whole.jsonl", captures.vllm(made)).read_bytes()
    name, spoil, words = FILES[case]
    (tmp_path / name).write_bytes(spoil(raw))
    with pytest.raises(errors.InputError, match=words):
        moescope.import_captures([tmp_path / name], tmp_path / "a.duckdb", kind, model=made.saved(tmp_path))
    assert list(tmp_path.glob("a.duckdb*")) == []


def test_a_store_that_was_there_stays(tmp_path: Path) -> None:
    made = captures.served(n=3)
    whole = captures.lines(tmp_path / "whole.jsonl", captures.vllm(made))
    model, cut = made.saved(tmp_path), tmp_path / "cut.jsonl"
    cut.write_bytes(whole.read_bytes()[:-300])
    moescope.import_captures([whole], tmp_path / "a.duckdb", model=model)
    with pytest.raises(errors.InputError):
        moescope.import_captures([cut], tmp_path / "a.duckdb", model=model)
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select run, sequences from runs") == [(0, 3)]


SOUND: dict[str, Callable[[list[Any]], bytes]] = {
    "a mark of UTF-8 before it": lambda r: b"\xef\xbb\xbf" + "\n".join(map(json.dumps, r)).encode(),
    "a list": lambda r: json.dumps(r).encode(),
    "a list over lines": lambda r: json.dumps(r, indent=1).encode(),
    "other ends of lines": lambda r: "\r\n".join(map(json.dumps, r)).encode(),
    "empty lines": lambda r: ("\n\n" + "\n \n".join(map(json.dumps, r)) + "\n\n\n").encode(),
}


@pytest.mark.parametrize("case", SOUND)
def test_json_as_it_is_kept(case: str, tmp_path: Path) -> None:
    made = captures.served(n=3)
    (tmp_path / "a.json").write_bytes(SOUND[case](captures.vllm(made)))
    done = moescope.import_captures([tmp_path / "a.json"], tmp_path / "a.duckdb", model=made.saved(tmp_path))
    assert (done.kind, done.sequences) == ("vllm", 3)


OTHERS = {
    "megatron": "no routing trace of Megatron", "policylang": "without a prompt|no header", "sglang": "no multiple|cut off",
    "esft": "holds no expert_weights", "llamacpp": "no CSV of layer and expert", "table": "no column that is the expert",
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_engine_than_is_said(kind: str, tmp_path: Path) -> None:
    made = captures.served(n=3)
    file = captures.lines(tmp_path / "a.jsonl", captures.vllm(made))
    with pytest.raises(errors.InputError, match=OTHERS[kind]) as refusal:
        moescope.import_captures([file], tmp_path / "a.duckdb", kind, model=made.saved(tmp_path))
    assert not any(word in str(refusal.value) for word in ("Error:", "none of a.jsonl", "NaN"))
    assert list(tmp_path.glob("a.duckdb*")) == []


LABELS = {
    "more cells than columns": ("a.csv", "request,domain\nx,code,more\n", "the row of x has more cells"),
    "an object": ("a.jsonl", '{"request": "x", "domain": {"a": 1}}\n', "domain of x is a list or an object"),
    "a list": ("a.jsonl", '{"request": "x", "domain": ["a"]}\n', "domain of x is a list or an object"),
    "twice": ("a.csv", "request,domain\nx,a\nx,b\n", "names request x twice"),
    "no name": ("a.csv", "who,domain\nx,a\n", "no column that names a request"),
    "nothing": ("a.csv", "", "no column that names a request"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_are_none(case: str, tmp_path: Path) -> None:
    name, text, words = LABELS[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(errors.InputError, match=words):
        Labels(tmp_path / name)


@pytest.mark.parametrize(("name", "said"), [("experts", 9), ("top_k", 2), ("layers", 7)])
def test_numbers_beside_a_model_that_are_not_its_own(name: str, said: int, tmp_path: Path) -> None:
    made = captures.served(n=3)
    file, model = captures.lines(tmp_path / "a.jsonl", captures.vllm(made)), made.saved(tmp_path)
    own = {"experts": made.experts, "top_k": made.top_k, "layers": made.layers}
    with pytest.raises(errors.InputError, match=f"--{name.replace('_', '-')} {said} was said, and .* has {own[name]}"):
        moescope.import_captures([file], tmp_path / "a.duckdb", model=model, **{name: said})
    assert moescope.import_captures([file], tmp_path / "a.duckdb", model=model, **{name: own[name]}).sequences == 3


def test_no_model_chooses_more_experts_than_it_has() -> None:
    with pytest.raises(errors.InputError, match="top-9 of 8 experts"):
        of_config({"num_experts": 8, "num_experts_per_tok": 9, "num_hidden_layers": 2}, "m")


@pytest.mark.parametrize("read", [read_model, Tokenizer])
def test_a_hub_that_does_not_answer_is_asked_once(read: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def silent(self: Any, name: str, **options: Any) -> None:
        asked.append((name, options["timeout"]))
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("tried for half a minute"))
    with pytest.raises(errors.InputError, match=r"the hub gives no .*json of that name .*no route"):
        read("nobody/nothing")
    assert asked == [("nobody/nothing", 10)]
