"""Valid inputs of every kind that moescope reads, tiny: what hostile inputs are made from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from vmoe_writer import write

from moescope.models.vmoe import VMoE, VMoEConfig
from moescope.models.vmoe.config import EncoderConfig, MoeConfig

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "seven", "small", "dogs", "run", "far", "away"]
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(4)]
VOCABULARY = 20
CONLLU = "# newdoc id = d1\n# text = the cat\n1\tthe\tthe\tDET\t_\t_\t2\tdet\t_\t_\n2\tcat\tcat\tNOUN\t_\t_\t0\troot\t_\t_\n\n"
LEX = CONLLU.replace("\t_\n", "\t_" + "\t_" * 9 + "\n")


def tables(folder: Path) -> None:
    """Texts as every format of rows."""
    rows = [{"text": text, "domain": f"d{n % 2}", "year": 2000 + n} for n, text in enumerate(TEXTS)]
    frame = pd.DataFrame(rows)
    (folder / "data.txt").write_text("\n\n".join(TEXTS) + "\n")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame.to_csv(folder / "data.csv", index=False)
    routed = [(s, p, layer, (s + p + layer + r) % 4, r) for s in (0, 1) for p in (0, 1, 2) for layer in (0, 1) for r in (0, 1)]
    pd.DataFrame(routed, columns=["sequence", "position", "layer", "expert", "rank"]).to_csv(folder / "routed.csv", index=False)
    frame.to_csv(folder / "data.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "data.parquet")
    (folder / "data.conllu").write_text(CONLLU * 2)
    (folder / "data.conllulex").write_text(LEX * 2)
    np.savez(folder / "data.npz", input_ids=np.arange(1, 13).reshape(3, 4), labels=np.array(["a", "b", "a"]))
    datasets.Dataset.from_dict({"text": TEXTS, "kind": ["a", "b", "a", "b"]}).save_to_disk(folder / "saved")
    for domain in ("one", "two"):
        (folder / "texts" / domain).mkdir(parents=True)
        (folder / "texts" / domain / "a.txt").write_text(TEXTS[0])
        (folder / "texts" / domain / "b.jsonl").write_text(json.dumps(rows[1]) + "\n")


def images(folder: Path) -> None:
    """Eight images, a group of a V-MoE, as a folder and as an archive."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 8), np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(8) % 2, class_names=np.array(["no", "yes"]))
    for number, image in enumerate(pixels):
        place = folder / "images" / ("no", "yes")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.{('png', 'jpg', 'bmp', 'gif', 'tif', 'webp', 'pgm', 'png')[number]}")


def mixtral(folder: Path) -> None:
    """A model of one layer, with a tokenizer of words."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=None, eos_token_id=None, architectures=["MixtralForCausalLM"],
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).eval().save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<pad>", "<unk>", *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder)


def sharded(folder: Path, source: Path) -> None:
    """The same with its weights in two files and an index."""
    shutil.copytree(source, folder)
    model = transformers.MixtralForCausalLM.from_pretrained(source)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="6KB")


def vmoe(folder: Path, checkpoint: Path) -> None:
    """A V-MoE of two layers as a folder, and a few arrays as a checkpoint of the authors."""
    torch.manual_seed(0)
    encoder = EncoderConfig(2, 16, 2, moe=MoeConfig(num_experts=2, layers=(1,)))
    config = VMoEConfig(2, (4, 4), 8, encoder, channels=1, image_size=(8, 8))
    VMoE(config).eval().save_pretrained(folder)
    write(
        checkpoint,
        {"embedding": {"kernel": np.ones((4, 4, 1, 8), np.float32)}, "cls": np.ones((1, 1, 8), np.float32)},
        shards=2,
    )


def make(folder: Path, trace: Callable[[list[str]], object]) -> None:
    """Everything into `folder`; `trace` runs a command line of moescope."""
    tables(folder)
    images(folder)
    mixtral(folder / "model")
    sharded(folder / "sharded", folder / "model")
    vmoe(folder / "vision", folder / "checkpoint")
    for data in ("data.jsonl", "data.conllu"):
        trace(["trace", str(folder / "model"), "--data", str(folder / data), "--store", str(folder / "run.duckdb"), "--quiet"])
