"""Trace every family that takes media, in a process of its own (torchvision is in it), and say what its processor gave.

Writes FOLDER/FAMILY.duckdb and FOLDER/FAMILY.json: of every record its kind, ids and the recounted tokens.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torchvision_beside

THERE = torchvision_beside.importable()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from media_families import FAMILIES, PLAIN, made  # noqa: E402
from media_recount import PICTURES, TEXT, recounted  # noqa: E402

import moescope  # noqa: E402

Record = dict[str, Any]
KEPT = ("input_ids", "feature_attention_mask")
APART = ("glm4v_moe",)  # writes the frames of films as pictures, and so Transformers cannot run both in one batch


def picture(name: str) -> np.ndarray:
    """Pixels that differ from place to place."""
    down, across = PICTURES[name]
    y, x, c = np.indices((down, across, 3))
    return ((y * 7 + x * 5 + c * 40) % 256).astype(np.uint8)


def records(takes: tuple[str, ...]) -> list[tuple[str, Record, list[str]]]:
    """(kind, record, names of its pictures), of everything that a family takes, and texts between them."""
    found: list[tuple[str, Record, list[str]]] = [
        ("text", {"text": "no picture here"}, []),
        ("image", {"text": "one", "image": picture("wide")}, ["wide"]),
        ("image", {"text": "small and tall", "images": [picture("small"), picture("tall")]}, ["small", "tall"]),
    ]
    if "audio" in takes:
        wave = np.sin(np.arange(24000) / 20).astype(np.float32)
        found.append(("audio", {"text": "hear", "audio": {"array": wave, "sampling_rate": 16000}}, []))
    if "video" in takes:
        found.append(("video", {"text": "a film", "video": np.stack([picture("small")] * 4)}, []))
    return found


def given(processor: Any, kind: str, record: Record, answer: bool) -> dict[str, Any]:
    """What the processor makes of a record, called by hand."""
    values = record.get("images") or [record[kind]] * (kind in record)
    shown = [{"type": kind}] * len(values) + [{"type": "text", "text": record["text"]}]
    if kind == "text":
        return dict(processor.tokenizer(record["text"]))
    talk = [{"role": "user", "content": shown}]
    text = processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=answer)
    more: Record = {"images": values} if kind == "image" else {}
    more |= {"videos": values, "do_sample_frames": False} if kind == "video" else {}
    more |= {"audio": [v["array"] for v in values], "sampling_rate": 16000} if kind == "audio" else {}
    batch = processor(text=[text], return_tensors="pt", **more)
    return {name: np.asarray(value) for name, value in batch.items() if name in KEPT or name.endswith("grid_thw")}


def run(name: str, folder: Path) -> None:
    """Runs of a family: its records, and generation after the first with a picture."""
    model, processor = made(name)
    told, store, parts = [], folder / f"{name}.duckdb", records(FAMILIES[name].takes)
    films = [part for part in parts if part[0] == "video"]
    groups = [[part for part in parts if part[0] != "video"], films] if name in APART else [parts]
    for number, (some, generate) in enumerate([*((group, 0) for group in groups), ([parts[1]], 2)]):
        for kind, record, names in some:
            batch = given(processor, kind, record, generate > 0)
            ids = np.asarray(batch["input_ids"]).reshape(-1).tolist()
            truth = [TEXT] * len(ids) if kind == "text" else recounted(name, kind, ids, batch, names)
            told.append({"run": number, "kind": kind, "ids": ids, "tokens": truth, "generate": generate})
        with torch.no_grad():
            moescope.trace(model, [record for _, record, _ in some], store, processor=processor, generate=generate)
    (folder / f"{name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in FAMILIES if THERE else PLAIN:
        run(name, Path(sys.argv[1]))
