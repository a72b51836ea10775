"""moescope trace: run a model over data and keep every router decision."""

import sys
from pathlib import Path
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import BATCH, COUNT, LAYERS, NAMES, SEED, SETTINGS, SHARE, STORE, TEXT, THREADS, Whole


def _summaries(named: list[str] | None, none: bool) -> bool | list[str]:
    if named and none:
        raise click.UsageError("--summaries and --experts-only exclude each other")
    return named or not none


@click.command(name="trace")
@click.argument("model", type=TEXT)
@click.option(
    "--data",
    required=True,
    type=TEXT,
    help="A file, folder, pattern, hub name or shipped set: text, JSON, tables, shards, images.",
)
@click.option("--store", required=True, type=STORE, help="The DuckDB file; made, or given one more run.")
@click.option("--name", type=TEXT, help="Your name for the run.")
@loads
@click.option("--tensor-parallel", is_flag=True, help="Under torchrun: each process has a part of every matrix.")
@click.option("--expert-parallel", is_flag=True, help="Under torchrun: the same, and each process has whole experts.")
@click.option("--threads", type=THREADS, help="CPU threads; a model under 100 M parameters gets one by default.")
@click.option("--workers", type=Whole(1, 4096), help="Trace by so many processes, each with the model.")
@click.option(
    "--engine", type=click.Choice(["processes", "ray"]), help="Where --workers are: this machine; or a cluster of Ray."
)
@click.option("--address", type=TEXT, help="Of the cluster of Ray: auto, HOST:PORT; else RAY_ADDRESS, or one of this machine.")
@click.option(
    "--gpus-per-worker", type=Whole(0, 64), help="Of each worker of Ray, over which it spreads the model.  [default: 1]"
)
@click.option("--stream", is_flag=True, help="Hold nothing of the data, which may be of any size; works for hub data too.")
@click.option("--batch-size", type=BATCH, help="Sequences in a batch.  [default: 8]")
@click.option("--batch-tokens", type=Whole(1, 2**32 - 1), help="Tokens in a batch, padding included; similar lengths together.")
@click.option("--max-tokens", type=COUNT, help="Stop after about so many tokens.")
@click.option("--max-length", type=Whole(2, 2**32), help="Tokens per window; longer texts become several windows.")
@click.option("--limit", type=COUNT, help="Only the first so many examples.")
@click.option("--layers", callback=LAYERS, help="Only these layers: 0,4-6.")
@click.option("--experts-only", is_flag=True, help="Only which experts: no weights, entropy, log-sum-exp, margin.")
@click.option("--summaries", callback=NAMES, help="Only these of entropy, log_sum_exp, margin: entropy,margin.")
@click.option("--logits", type=SHARE, default=0.0, help="Keep all router logits of this share of the tokens; 1: of all.")
@click.option("--predictions", is_flag=True, help="Label each token with the id that the model ranks first after it.")
@click.option("--measure", "activations", multiple=True, type=click.Choice(["importance", "dimensionality"]),
              help="Sum up activations on the way (the experts run once more); may be repeated.")  # fmt: skip
@click.option("--generate", type=Whole(1, 2**20), help="Generate so many tokens after each text, and trace them too.")
@click.option("--every", default=1, show_default=True, type=COUNT, help="Record only each n-th forward pass.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=SETTINGS,
    help="Change the routing: capacity_factor=0.5 (V-MoE); the call of a pipeline: num_inference_steps=20.",
)
@click.option("--seed", default=0, show_default=True, type=SEED)
@click.option("--text-column", type=TEXT, help="The column that holds the text (JSONL, tables, data sets).")
@click.option("--label-column", "label_columns", multiple=True, type=TEXT, help="A column that holds a label; may be repeated.")
@click.option("--prompt", type=TEXT, help='The text of pictures, sound and video that have none: "Describe this."')
@click.option("--no-media", is_flag=True, help="Leave columns image, video and audio alone: trace their texts only.")
@click.option(
    "--pictures", type=Whole(0, 2**31), default=1000, show_default=True, help="Pictures beside texts that are kept, small."
)
@click.option("--split", type=TEXT, help="Which split of a data set.")
@click.option("--sentences", is_flag=True, help="CoNLL-U: one sequence per sentence instead of one per document.")
@click.option("--chat", is_flag=True, help="Conversations (column messages or conversations), by the tokenizer's template.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows and files that cannot be used, and count them.")
@click.option("--revision", type=TEXT, help="Of a hub model.")
@click.option("--resume", is_flag=True, help="Go on with the same trace where it was cut off.")
@click.option("--overwrite", is_flag=True, help="Begin the store anew.")
@click.option("--append", is_flag=True, help="Add a run to the store if it exists (which is what happens anyway).")
@click.option("--commit-rows", type=COUNT, hidden=True, help="Make a shard durable after so many decisions.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def command(model: str, data: str, store: Path, quiet: bool, **options: Any) -> None:
    """Trace MODEL over DATA into STORE.

    MODEL is a shipped specimen (mixtral, switch, vmoe ...), a small model of a system (mor, dit_moe ...), a local folder (a
    pipeline of diffusers takes the texts of DATA as prompts), a hub name, or a V-MoE checkpoint's prefix.
    """
    from .._support.many import many
    from .._support.progress import Bar, summary

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if options["batch_size"] and options["batch_tokens"]:
        raise click.UsageError("--batch-size and --batch-tokens exclude each other")
    options["batch_size"] = options["batch_size"] or 8
    with many(model, data, options) as first, Bar(quiet or not first) as bar:
        try:
            run = _trace(model, data, store, options, bar, quiet)
        except KeyboardInterrupt:
            bar.say(f"moescope: interrupted; what was traced is kept: look with moescope info {store}, go on with --resume")
            raise SystemExit(130) from None
    if first and not quiet:
        summary(store, run)


def _trace(model: str, data: str, store: Path, options: dict[str, Any], bar: Any, quiet: bool) -> int:
    from ...tracer import Options, check_plan
    from ...tracer.many.worker import Task
    from .._support.workers import Engine, traced

    planned = ("name", "seed", "batch_size", "max_tokens", "max_length", "limit", "generate")
    check_plan(store, **{name: options[name] for name in planned}, batch_tokens=options["batch_tokens"])
    how = loading(options, quiet) | {name: options.pop(name) for name in ("revision", "parallel")}
    reading = {"text_column": options.pop("text_column"), "label_columns": list(options.pop("label_columns")) or None}
    reading |= {"split": options.pop("split"), "sentences": options.pop("sentences"), "chat": options.pop("chat")}
    reading |= {"prompt": options.pop("prompt"), "media": not options.pop("no_media")}
    reading |= {"skip_bad": options.pop("skip_bad")}
    capture = Options(
        weights=not options["experts_only"],
        summaries=_summaries(options.pop("summaries"), options.pop("experts_only")),
        logits=options.pop("logits"),
        predictions=options.pop("predictions"),
        layers=options.pop("layers"),
        activations=options.pop("activations"),
        every=options.pop("every"),
        pictures=options.pop("pictures"),
        **({"commit_rows": rows} if (rows := options.pop("commit_rows")) else {}),
    )
    options.pop("append")
    options["generate"] = options["generate"] or 0
    parts = {name: options.pop(name) for name in ("threads", "name", "seed", "stream")}
    engine = Engine(*(options.pop(name) for name in ("workers", "launched", "engine", "address", "gpus_per_worker")))
    resume, overwrite, overrides = (options.pop(name) for name in ("resume", "overwrite", "overrides"))
    task = Task(model, data, store, how, reading, options, capture, overrides, command=["moescope", *sys.argv[1:]], **parts)
    return traced(task, engine, resume, overwrite, bar.show)
