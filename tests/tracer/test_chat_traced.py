"""Conversations traced: every token of the store has the role, turn and reasoning that an independent recount gives it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import texts
import torch
from chat_segments import Message, joined_up, recounted, segments
from chat_templates import TEMPLATES
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import InputError, StoreError
from moescope.inputs import read
from moescope.models.loading import Loaded

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TALKS: list[list[Message]] = [
    [{"role": "system", "content": " ab"}, {"role": "user", "content": "cd"}],
    [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "<think>a b</think>cd"},
     {"role": "user", "content": ""}],
    [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "", "reasoning_content": "b", "tool_calls": [CALL]},
     {"role": "tool", "content": "日"}],
]  # fmt: skip


def loaded(kind: str = "decoder", style: str = "chatml") -> Loaded:
    reads = texts.loaded(kind, "bytes")
    words = copy.deepcopy(reads.tokenizer)
    words.chat_template = TEMPLATES[style]
    return Loaded(reads.name, reads.model, words)


def stored(path: Path, stack: str = "decoder") -> list[list[list[Any]]]:
    """Of every source row (id, generated, role, turn, reasoning) of its tokens."""
    kinds = ("role", "turn", "reasoning")
    columns = ", ".join(f"(select label from token_labels l where l.token = t.token and kind = '{kind}')" for kind in kinds)
    query = f"""select source_row, vocab_id, generated, {columns} from tokens t join sequences using (sequence)
        where stack = ? order by source_row, part, position"""
    with moescope.open(path) as store:
        rows = store.rows(query, [stack])
        assert store.rows("select count(*) from tokens where word is not null") == [(0,)]
    return [[list(row[1:]) for row in rows if row[0] == n] for n in sorted({row[0] for row in rows})]


def wanted(words: Any, messages: list[Message], ask: bool = False) -> list[list[Any]]:
    ids = words.apply_chat_template(messages, tokenize=True, add_generation_prompt=ask)["input_ids"]
    labels = recounted(words.convert_ids_to_tokens(ids), joined_up(segments("chatml", messages, ask)))
    return [[i, False, *own] for i, own in zip(ids, labels)]


@pytest.mark.parametrize("windows", [None, 7])
def test_tokens_have_their_roles(tmp_path: Path, windows: int | None) -> None:
    """Also where a conversation is cut into windows."""
    reads = loaded()
    moescope.trace(reads, TALKS, tmp_path / "a.duckdb", batch_size=2, max_length=windows)
    assert stored(tmp_path / "a.duckdb") == [wanted(reads.tokenizer, messages) for messages in TALKS]


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_generated_is_the_assistants(tmp_path: Path, cached: bool) -> None:
    """Three tokens behind each prompt, of which two are run."""
    reads = loaded()
    reads.model.generation_config.use_cache = cached
    moescope.trace(reads, TALKS, tmp_path / "a.duckdb", batch_size=2, generate=3)
    for messages, rows in zip(TALKS, stored(tmp_path / "a.duckdb"), strict=True):
        prompt = wanted(reads.tokenizer, messages, ask=True)
        assert rows[: len(prompt)] == prompt
        made = rows[len(prompt) :]
        assert 1 <= len(made) <= 2
        assert {tuple(row[1:]) for row in made} == {(True, "assistant", str(len(messages)), None)}


def test_an_answer_is_gone_on_with(tmp_path: Path) -> None:
    reads, messages = loaded(), [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]
    moescope.trace(reads, [messages], tmp_path / "a.duckdb", generate=2)
    (rows,) = stored(tmp_path / "a.duckdb")
    ids = reads.tokenizer.apply_chat_template(messages, tokenize=True, continue_final_message=True)["input_ids"]
    assert [row[0] for row in rows[: len(ids)]] == ids
    assert [row[1:] for row in rows[-2:]] == [[False, "assistant", "1", None], [True, "assistant", "1", None]]


@pytest.mark.parametrize("kind", ["sentinels", "shifted"])
def test_both_sides_of_an_encoder_and_decoder(tmp_path: Path, kind: str) -> None:
    """A role goes with its token into the decoder too."""
    reads = loaded(kind)
    moescope.trace(reads, TALKS[:1], tmp_path / "a.duckdb")
    plain = wanted(reads.tokenizer, TALKS[0])
    (encoder,), (decoder,) = (stored(tmp_path / "a.duckdb", stack) for stack in ("encoder", "decoder"))
    roles = {i: {own[2] for own in plain if own[0] == i} for i in {row[0] for row in plain}}
    labelled = [row for row in [*encoder, *decoder] if row[2] is not None]
    assert len(labelled) >= len(plain)
    assert all(row[2] in roles[row[0]] for row in labelled)
    assert kind == "sentinels" or [row[0:1] + row[2:] for row in decoder[1:]] == [row[0:1] + row[2:] for row in plain[:-1]]


def share_gpt(messages: list[Message]) -> list[dict[str, str]]:
    said = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": said[m["role"]], "value": m["content"]} for m in messages]


PLAIN: list[list[Message]] = [
    [{"role": "system", "content": "ab"}, {"role": "user", "content": "cd"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}],
]


def _jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"messages": PLAIN}), folder / "talks.parquet")
    return folder / "talks.parquet"


def _saved(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list([{"messages": m} for m in PLAIN]).save_to_disk(folder / "saved")
    return folder / "saved"


def _csv(folder: Path) -> Path:
    import pandas as pd

    pd.DataFrame({"messages": [json.dumps(m) for m in PLAIN]}).to_csv(folder / "talks.csv", index=False)
    return folder / "talks.csv"


def _frame(folder: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(_parquet(folder))


HOLDERS: dict[str, Callable[[Path], Any]] = {
    "messages.jsonl": lambda folder: _jsonl(folder, [{"messages": m} for m in PLAIN]),
    "conversations.jsonl": lambda folder: _jsonl(folder, [{"conversations": m} for m in PLAIN]),
    "ShareGPT": lambda folder: _jsonl(folder, [{"conversations": share_gpt(m)} for m in PLAIN]),
    "parquet": _parquet,
    "csv": _csv,
    "saved": _saved,
    "frame": _frame,
    "list of lists": lambda _: PLAIN,
    "generator": lambda _: (m for m in PLAIN),
    "list of dicts": lambda _: [{"messages": m} for m in PLAIN],
    "columns": lambda _: {"messages": PLAIN},
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_holder_gives_the_same_conversations(tmp_path: Path, holder: str) -> None:
    """A column of conversations is taken without being asked for."""
    data = read(HOLDERS[holder](tmp_path))
    assert [[dict(m) for m in e.messages] for e in data.examples] == PLAIN
    assert data.kind == "text"


def test_other_columns_are_labels_and_tools_are_none(tmp_path: Path) -> None:
    schema = {"type": "function", "function": {"name": "f"}}
    rows = [{"messages": PLAIN[0], "domain": "law", "tools": [schema]}, {"messages": PLAIN[1], "domain": "news", "tools": "[]"}]
    first, second = read(_jsonl(tmp_path, rows)).examples
    assert (first.labels, first.tools, second.labels, second.tools) == ({"domain": "law"}, (schema,), {"domain": "news"}, ())


def test_a_text_goes_before_conversations_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, [{"text": "ab", "messages": PLAIN[0], "chosen": PLAIN[1]}])
    assert [(e.text, e.messages) for e in read(path).examples] == [("ab", ())]
    assert [(e.text, list(e.messages)) for e in read(path, chat=True).examples] == [(None, PLAIN[0])]
    assert [(e.text, list(e.messages)) for e in read(path, text_column="chosen").examples] == [(None, PLAIN[1])]


GOOD = {"messages": PLAIN[0]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"messages": []}, "the conversation is empty"),
    "text": ({"messages": "hello"}, "column 'messages' holds str values, not conversations"),
    "number": ({"messages": 3}, "column 'messages' holds int values, not conversations"),
    "ids": ({"messages": [1, 2]}, "message 0 is int"),
    "no role": ({"messages": [{"content": "a"}]}, r"message 0 has no role \(its fields: content\)"),
    "role of another type": ({"messages": [{"role": 1, "content": "a"}]}, "message 0 has no role"),
    "no content": ({"messages": [*PLAIN[0], {"role": "user"}]}, "message 2, of user, has no content"),
    "content of another type": ({"messages": [{"role": "user", "content": 3}]}, "message 0, of user, has int content"),
    "parts of another type": ({"messages": [{"role": "user", "content": ["a"]}]}, "message 0, of user, holds parts"),
    "markup's name": ({"messages": [{"role": "template", "content": "a"}]}, "message 0 has the role 'template'"),
    "half a surrogate pair": ({"messages": [{"role": "user", "content": "\ud800"}]}, "message 0 holds half a surrogate pair"),
    "tools": ({"messages": PLAIN[0], "tools": 3}, "column 'tools' holds int values"),
    "spans": (
        {"messages": PLAIN[0], "spans": [{"start": 0, "end": 1, "kind": "a", "value": "b"}]},
        "`spans` label parts of a text",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_named(tmp_path: Path, what: str) -> None:
    row, sentence = BAD[what]
    with pytest.raises(InputError, match=f"^talks.jsonl, row 1: .*{sentence}"):
        read(_jsonl(tmp_path, [GOOD, row]))


def test_what_is_no_list_of_conversations() -> None:
    with pytest.raises(InputError, match="inputs are the messages of one conversation: put them into a list"):
        read(PLAIN[0])
    with pytest.raises(InputError, match="conversations, row 1: column 'messages' holds str values"):
        read([PLAIN[0], "hello"])
    with pytest.raises(InputError, match="asks for conversations, but there is no column messages"):
        read([{"text": "a"}], chat=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of files, with its tokenizer and template."""
    path, reads = tmp_path_factory.mktemp("talking"), loaded()
    reads.model.save_pretrained(path / "model")
    reads.tokenizer.save_pretrained(path / "model")
    return path


def test_from_the_command_line(folder: Path) -> None:
    data, store = _jsonl(folder, [{"text": "x", "messages": m} for m in TALKS[:2]]), folder / "run.duckdb"
    done = CliRunner().invoke(
        main, ["trace", str(folder / "model"), "--data", str(data), "--store", str(store), "--chat", "--generate", "2", "-q"]
    )
    assert (done.exit_code, done.output) == (0, "")
    words = loaded().tokenizer
    for messages, rows in zip(TALKS, stored(store)):
        prompt = wanted(words, messages, ask=True)
        assert rows[: len(prompt)] == prompt
        assert [row[1:] for row in rows[len(prompt) :]] == [[True, "assistant", str(len(messages)), None]]


@pytest.mark.parametrize(("template", "more", "sentence"), [
    (TEMPLATES["mistral"], [], r"talks.jsonl, row 1: the chat template refuses this conversation \(Conversation roles must"),
    (None, [], "talks.jsonl, row 0 is a conversation, but the tokenizer has no chat template"),
    (TEMPLATES["chatml"], ["--generate"], r"talks.jsonl, row 0 is a conversation of \d+ tokens, and a window holds 9"),
    (TEMPLATES["chatml"], ["--sentences"], "takes no --sentences"),
])  # fmt: skip
def test_refused_from_python_and_nothing_is_written(folder: Path, template: Any, more: list[str], sentence: str) -> None:
    reads, store = loaded(), folder / "none.duckdb"
    reads.tokenizer.chat_template = template
    data = _jsonl(folder, [GOOD, {"messages": PLAIN[1] + PLAIN[1][1:]}])
    settings: dict[str, Any] = {"generate": 1, "max_length": 9} if "--generate" in more else {}
    with pytest.raises(InputError, match=sentence):
        moescope.trace(reads, data, store, reading={"sentences": "--sentences" in more}, **settings)
    assert not store.exists()


def test_bad_conversations_can_be_left_out(tmp_path: Path) -> None:
    """What the reader refuses and what the template refuses; the others are what they are alone."""
    reads = loaded(style="mistral")
    bad: list[dict[str, Any]] = [{"messages": []}, {"messages": PLAIN[1][:1] * 2}, {"messages": [{"role": "user"}]}]
    data = _jsonl(tmp_path, [{"messages": PLAIN[1]}, *bad, {"messages": PLAIN[1]}])
    moescope.trace(reads, data, tmp_path / "a.duckdb", reading={"skip_bad": True})
    with moescope.open(tmp_path / "a.duckdb") as store:
        assert store.rows("select source_row from sequences order by 1") == [(0,), (4,)]
        ((said,),) = store.rows("select warnings from runs")
    for sentence in (
        "talks.jsonl, row 1: the conversation is empty",
        "row 2: the chat template refuses",
        "row 3: message 0, of user",
    ):
        assert sentence in said


def test_another_template_is_another_trace(tmp_path: Path) -> None:
    """It is not gone on with."""
    moescope.trace(loaded(), PLAIN[:1], tmp_path / "a.duckdb")
    assert moescope.trace(loaded(), PLAIN[:1], tmp_path / "a.duckdb", resume=True) == 0
    with pytest.raises(StoreError, match="there is nothing to resume"):
        moescope.trace(loaded(style="gemma"), PLAIN[:1], tmp_path / "a.duckdb", resume=True)


@pytest.mark.parametrize("beams", [1, 2])
def test_what_is_made_between_marks_is_thought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beams: int) -> None:
    """A model that is made to say it: <think> b a </think> c, of which the last is not run; another beam says nothing of it."""
    reads = loaded()
    reads.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    said = reads.tokenizer.encode("<think>ba</think>c", add_special_tokens=False)
    prompts: list[int] = []

    def forced(fed: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        prompts.append(fed.shape[1])
        wanted = said[fed.shape[1] - prompts[0]]
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([wanted]), 0.0)

    generate = reads.model.generate
    more = {"logits_processor": [forced], "num_beams": beams, "suppress_tokens": None}
    monkeypatch.setattr(reads.model, "generate", lambda **inputs: generate(**inputs, **more))
    moescope.trace(reads, [TALKS[0]], tmp_path / "a.duckdb", generate=len(said), batch_size=1)
    (rows,) = stored(tmp_path / "a.duckdb")
    made = [row[3:] for row in rows if row[1] and row[0] in said]
    assert made == [["2", None], ["2", "true"], ["2", "true"], ["2", None]]
