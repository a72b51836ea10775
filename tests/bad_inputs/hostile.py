"""Hostile inputs by rule: a valid command line whose options, or whose files, are made wrong.

Nothing here lists cases. Commands, their options and the types of these are found in the click group; files are mutated by
rules that know a format's structure (JSON values swapped, headers that promise too much) or nothing (bits, lengths, endings).
A case is data that another process executes: `Case(command line, [(file, rule, seed)])`.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import click
from damage import RULES

from moescope.cli import main

HUGE = ["999999999999", "9" * 30, "9" * 5000, str(2**31), str(2**32), str(2**63), str(2**64), "1e308"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "maybe", "", " 1", "1_0", "٣", "0x10", "1e3", "1.5", "None", "true", "+1", "-0"]
WORDS = ["", " ", "maybe", "nan", "x" * 5000, "ünï", "日本", "a\nb", "a\tb", "\x1b[31mred", "\udcff", "../..", "/",
         "~", "~nobody",
         ".", "a=b", "%s", "{}", "'", '"', "';--", "*", "\\", "\x7f", "-", "--", "null", "0", "1,2", "a:b", "a/b",
         "a/b:c"]  # fmt: skip
# Of the system only what nobody can write, the superuser included: cases may say --overwrite.
PATHS = ["", ".", "..", "/", "/dev/null", "/dev/full", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/version",
         "missing", "missing/x",
         "x" * 300, "a/" * 3000, "data.txt/x", "run.duckdb/x", "texts", "model", "fifo", "loop", "socket",
         "\udcff.duckdb", "a\nb",
         "lr=0.1/x.duckdb", "file:///proc/version", "https://example.invalid/x", "s3://a/b", "~/x", "-", ":memory:",
         "md:x"]  # fmt: skip
LISTS = ["0-999999999999", "5-1", "0,", ",", "0--1", "-", "1-2-3", "٣", "0-0x5", "9" * 30, "0:0-99999999999", "0:9", 
         "encoder.0", "0:"]  # fmt: skip
PAIRS = ["capacity_factor=nan", "capacity_factor=-1", "batch_priority=maybe", "num_selected_experts=0",
         "group_size=x", "=", "a", "a=b=c",
         "capacity=1e999", "capacity_factor=[1]", "noise_std=null", "group_size=99999999999", "seed=nan", "by=3",
         "seed=-1", "k=[[[[",
         "num_selected_experts=999", "capacity=true", "deterministic=7", "top=inf", "least=-1",
         "draws=99999999999999"]  # fmt: skip
QUERIES = ["", ";", "-- nothing", "select 1; select 2", "drop table runs", "create table x as select 1", "select",
           "copy runs to 'x.csv'",
           "attach 'x.db'", "from nothing", "select * from read_text('/etc/passwd')", "pragma database_list",
           "select 1/0", "selec\u0442 1",
           "select '\udcff'", "install httpfs", "set threads = 1", "select error('boo\nboo')", "/* */",
           "select 1 as a, 2 as a",
           "explain from runs", "describe runs", "delete from runs", "select ?", "select $1", "select 'ü\n\x1b[31m'",
           "from runs;",
           "select unnest([1,2])", "select {'a': 1}", "select null", "select 1::blob", "values (1)",
           "select repeat('x', 99999999999)",
           "with x as (select 1) from x", "call pragma_version()", "checkpoint", "begin", "export database 'x'",
           "select uuid()",
           "select 'infinity'::timestamp, '290000-01-01'::date, 99999999999999999999999999999999999999::hugeint",
           "select '5 years'::interval, time '12:00:00', timestamptz '2020-01-01 00:00:00+00', [map {1: 2}]"]  # fmt: skip
MODELS = ["model", "sharded", "vision", "checkpoint", "mixtral", "nobody/nothing", "texts", "data.txt", "missing",
          "a/b/c", "a//b", "..",
          "http://x/y", "model/", "model/config.json", "-", "\udcff", "x" * 300, "gpt2", "owner/" + "x" * 200,
          "owner/na me", "o/..", "日/本"]  # fmt: skip
QUANTIZE = ["8bit", "4bit", "int8-torchao", "fp8-torchao", "int4-torchao", "fp8", "8", "4BIT", "8bit,4bit", "gptq"]
ATTENTION = ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "paged|sdpa", "kernels-community/x", "EAGER"]
ADAPTERS = ["model", "sharded", "vision", "texts", "images", "missing", "model/config.json", "nobody/nothing"]
TEXTUAL = [
    "data.jsonl",
    "data.txt",
    "data.csv",
    "data.tsv",
    "data.parquet",
    "data.npz",
    "data.conllu",
    "data.conllulex",
    "saved",
    "texts",
]
PICTURES = ["images", "images.npz", "images/no/0.png"]
MEMORY = ["cpu=1GB", "cpu=0", "cpu=1KB,disk=0", "cpu", "0=1GB", "cpu=-1", "cpu=4 loaves", "=", "cpu=1GB,cpu=2GB",
          "disk=9TB", "cpu=9" + "9" * 30 + "GB", "meta=1GB", "cpu=1e9", "a=b=c"]  # fmt: skip
MAPS = ["auto", "balanced", "balanced_low_0", "sequential", "cpu", "disk", "model/config.json", "data.jsonl", "data.npz"]
PAGES = ["load", "tokens?run=0", "runs"]
LINKS = ["load?run=99", "load?run=x", "tokens?layer=", "?run=0", "http://[::1/load", "experts?expert=" + "9" * 30,
         "nothing", "../load", "load.py", "tokens?sequence=%00", "tokens?token=-1", "load#x", "load?run=0&run=1",
         "//load", "sql?q=%ff"]  # fmt: skip
DEVICES = ["auto", "cpu", "cuda", "cuda:77", "cuda:-1", "mps", "meta", "disk", "xla", "cpu:3", "nonsense"]
BY_NAME = {
    "device": DEVICES,
    "device_map": MAPS + PATHS,
    "max_memory": MEMORY + PAIRS,
    "query": QUERIES,
    "model": MODELS,
    "layers": LISTS,
    "experts": LISTS,
    "overrides": PAIRS,
    "options": PAIRS,
    "names": WORDS + PATHS,
    "quantize": QUANTIZE,
    "attn": ATTENTION,
    "adapter": ADAPTERS + PATHS,
    "pages": LINKS + WORDS,
}
VALID: dict[str, Any] = {"store": ["run.duckdb"], "query": ["from runs"], "experts": ["0:1"], "limit": ["2"]}


@dataclass(frozen=True)
class Case:
    """A command line, and what is done to which files before it runs; `real`: in a Python of its own, from start to exit."""

    args: list[str]
    edits: list[tuple[str, str, int]] = field(default_factory=list)
    real: bool = False


def commands() -> dict[str, click.Command]:
    """Every command of the group, and every form of a command that has forms ("serve model")."""
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}  # type: ignore[attr-defined]
    forms = {
        f"{name} {form}": command
        for name, group in found.items()
        if isinstance(group, click.Group)
        for form, command in group.commands.items()
    }
    return {
        name: command for name, command in found.items() if command is not None and not hasattr(command, "commands")
    } | forms


def valid(name: str, random: Random) -> tuple[list[str], list[str]]:
    """A command line that means no harm, and the files that it reads."""
    pictures = random.random() < 0.25
    model = random.choice(["vision", "vision", "checkpoint"] if pictures else ["model", "model", "sharded"])
    data = random.choice(PICTURES if pictures else TEXTUAL)
    model = "model" if name == "try" else model
    store = random.choice(["run.duckdb", "new.duckdb"]) if name == "trace" else "run.duckdb"
    given = {"model": model, "data": data, "store": store, "query": "select count(*) from expert_load", "experts": "0:1"}
    given |= {"first": "run.duckdb", "pages": random.choice(PAGES), "upstream": "http://127.0.0.1:9"}
    names = {
        "analyze": [random.choice(["load", "structure", "specialization", "importance"]), "run.duckdb"],
        "families": ["mixtral"],
        "import": ["table", "routed.csv", "--experts", "4", "--top-k", "2", "--layers", "2", "--store", "new.duckdb"],
        "experiment": [random.choice(["regret", "writes"]), "model", "run.duckdb"],
        "diff": ["--run", "1", "--other", "0"],
        "try": ["the cat sat", "--tokens", "2"],
    }
    args = name.split()
    for parameter in commands()[name].params:
        if isinstance(parameter, click.Argument):
            args += [given[parameter.name]] if parameter.required else names.get(name, [])
        elif parameter.required or (name == "ablate" and parameter.name in ("experts", "data")):
            args += [parameter.opts[0], given[str(parameter.name)]]
    args += ["--port", str(random.randint(20_000, 60_000))] if name == "listen" else []
    args += ["--run", "0"] if name == "report" else []  # every analysis of every run takes its time
    return args, [value for value in args[1:] if value in (model, data, "run.duckdb", "routed.csv")]


def value(parameter: click.Parameter, random: Random) -> str:
    """Something that this parameter may not like, by its name where its type says nothing, else by its type."""
    kind = parameter.type
    if parameter.name in BY_NAME and random.random() < 0.8:
        return random.choice(BY_NAME[parameter.name])
    if isinstance(kind, click.Path) or parameter.name in ("data", "store", "output"):
        return random.choice(PATHS)
    if isinstance(kind, click.Choice):
        return random.choice([*kind.choices, *WORDS])
    if (
        isinstance(kind, click.types.IntParamType | click.types.FloatParamType)
        or "number" in kind.name
        or "integer" in kind.name
    ):
        return random.choice(NUMBERS + HUGE)
    return random.choice(WORDS + NUMBERS + LISTS)


def hostile(name: str, random: Random) -> Case:
    """One case of a command: wrong options, wrong files, or both."""
    args, files = valid(name, random)
    what = random.random()
    edits = []
    if what > 0.4 and files:
        edits = [
            (random.choice(files), random.choice(RULES), random.randrange(1 << 30)) for _ in range(random.choice([1, 1, 1, 2]))
        ]
    if what < 0.5 or not files:
        for _ in range(random.choice([1, 1, 2, 3])):
            args = _worse(name, args, random)
    return Case(args, edits)


def _worse(name: str, args: list[str], random: Random) -> list[str]:
    """One parameter more, other or less."""
    parameter = random.choice(commands()[name].params)
    chance = random.random()
    if chance < 0.06:
        return [*args, random.choice(["--nonsense", "-x", "extra", "--", "-h=1"])]
    if chance < 0.10 and len(args) > 1:
        return args[: -random.randint(1, min(3, len(args) - 1))]
    if isinstance(parameter, click.Argument):
        place = random.randint(1, max(1, len(args) - 1))
        return [*args[:place], value(parameter, random), *args[place + 1 :]]
    option = random.choice(parameter.opts)
    if getattr(parameter, "is_flag", False):
        return [*args, option]
    if option in args and random.random() < 0.7:
        place = args.index(option)
        return [*args[: place + 1], value(parameter, random), *args[place + 2 :]]
    return [*args, option, value(parameter, random)]
