"""The shipped models' records against an independent recount from their routers' own outputs, in plain Python and NumPy.

Nothing here asserts what a specimen learned: they may be trained again.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common_goldens import golden as load_golden

import moescope
from moescope.inputs import read
from moescope.models.loading import load
from moescope.models.vmoe import from_flax
from moescope.tracer import Tracer, trace

HERE = Path(__file__).parents[1] / "goldens" / "vmoe"
SHARED = Path(__file__).parents[3] / "shared" / "goldens" / "vmoe"
GOLDENS = sorted(HERE.glob("*.npz")) + sorted(p for p in SHARED.glob("*.npz") if not (HERE / p.name).exists())
ROUTED = """select forward, {} as key, a.rank, a.expert, a.weight, a.dropped, a.buffer_position from assignments a
join routers r using (router) join tokens t using (token) join sequences s using (sequence)
where r.name = ? order by forward, t.sequence, t.position, slot"""


def heard(model: Any, kind: str) -> tuple[dict[str, list[Any]], list[Any]]:
    """Outputs of every router of a class, by path, as the model runs."""
    outputs: dict[str, list[Any]] = {}
    hooks = [
        m.register_forward_hook(lambda _, __, out, n=n: outputs.setdefault(n, []).append([t.detach().clone() for t in out]))
        for n, m in model.named_modules() if type(m).__name__ == kind
    ]  # fmt: skip
    return outputs, hooks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recount")


@pytest.mark.slow
def test_mixtral(folder: Path) -> None:
    """Two largest of the softmax, renormalized; the padding that a batch needs left out."""
    loaded, masks = load("mixtral"), []
    outputs, hooks = heard(loaded.model, "MixtralTopKRouter")
    hooks.append(
        loaded.model.register_forward_pre_hook(lambda _, __, named: masks.append(named.get("attention_mask")), with_kwargs=True)
    )
    trace(loaded, read("text", limit=6), folder / "mixtral.duckdb", batch_size=4, max_length=64, max_tokens=700)
    for hook in hooks:
        hook.remove()
    proofs = sum(mask is None for mask in masks)
    masks = [mask.flatten().bool() for mask in masks if mask is not None]
    with moescope.open(folder / "mixtral.duckdb") as store:
        names = [n for (n,) in store.rows("select name from routers order by router")]
        assert names == list(outputs)
        for name in names:
            rows = []
            for logits, mask in zip([o[0] for o in outputs[name][-len(masks) :]], masks):
                for row in logits[mask].double():
                    p = (row - row.max()).exp()
                    first, second = sorted(range(len(p)), key=lambda e: -float(p[e]))[:2]
                    rows += [
                        (first, float(p[first] / (p[first] + p[second]))),
                        (second, float(p[second] / (p[first] + p[second]))),
                    ]
            stored = store.rows(ROUTED.format("0"), [name])
            assert [r[3] for r in stored] == [e for e, _ in rows]
            assert np.allclose([r[4] for r in stored], [w for _, w in rows], atol=1e-6)
    assert proofs >= 1


@pytest.mark.slow
def test_switch(folder: Path) -> None:
    """The largest of the softmax; places counted along the sequence with its padding; what is beyond is dropped."""
    loaded, masks = load("switch"), []
    outputs, hooks = heard(loaded.model, "SwitchTransformersTop1Router")
    hooks.append(loaded.model.register_forward_pre_hook(lambda _, __, named: masks.append(named), with_kwargs=True))
    trace(loaded, read("text", limit=6), folder / "switch.duckdb", batch_size=4, max_length=96)
    for hook in hooks:
        hook.remove()
    masks = [named for named in masks if "decoder_attention_mask" in named]
    capacity, dropped = loaded.model.config.expert_capacity, 0
    with moescope.open(folder / "switch.duckdb") as store:
        for name, calls in outputs.items():
            side = "decoder_attention_mask" if name.startswith("decoder") else "attention_mask"
            rows = []
            for (_, _, logits), named in zip(calls[-len(masks) :], masks):
                mask = named[side].bool()
                for sequence, real in zip(logits.double(), mask):
                    taken: dict[int, int] = {}
                    for row, counts in zip(sequence, real):
                        expert = int(row.argmax())
                        place = taken.get(expert, 0)
                        taken[expert] = place + 1
                        if counts:
                            rows.append((expert, float(row.softmax(-1)[expert]), place >= capacity, place))
            stored = store.rows(ROUTED.format("0"), [name])
            assert [(r[3], *r[5:]) for r in stored] == [(e, d, p) for e, _, d, p in rows]
            assert np.allclose([r[4] for r in stored], [w for _, w, _, _ in rows], atol=1e-6)
            dropped += sum(d for *_, d, _ in rows)
        assert store.rows("select sum(dropped) from load_rollup") == [(dropped,)]


@pytest.mark.parametrize("case", GOLDENS, ids=lambda path: path.stem)
@pytest.mark.sampled(8)
def test_vmoe_against_the_authors_arrays(tmp_path: Path, case: Path) -> None:
    """Expert, place in the buffer, drop and weight of every token, as the authors' own code has them."""
    golden = load_golden(case)
    model = from_flax(golden, golden["config_json"]).eval()
    noise = {int(k[1]): torch.tensor(v) for k, v in golden.items() if k.endswith("/noise")}
    images = torch.tensor(golden["images"])
    with Tracer(model, tmp_path / "run.duckdb", inputs={"pixel_values": images}), torch.no_grad():
        model(images, noise=noise)
    soft = case.stem.startswith("softmoe")  # whose gates some processors' float32 products move by 4e-6
    close = {"atol": 1e-4 if '"bfloat16": true' in str(golden["config_json"]) else 1e-5 if soft else 1e-6, "rtol": 0}
    query = """select token, slot, expert, buffer_position, dropped, weight, dispatch_weight from assignments
        join routers using (router) where layer = ? order by token, slot"""
    with moescope.open(tmp_path / "run.duckdb") as store:
        for (layer,) in store.rows("select layer from routers"):
            rows = store.rows(query, [layer])
            if f"L{layer}/indices" in golden:
                theirs = golden[f"L{layer}/indices"].reshape(-1, 2).tolist()  # (expert, place) by token and slot
                assert [[row[2], row[3]] for row in rows] == theirs
                (capacity,) = {
                    c for (c,) in store.rows("select capacity from pools join routers using (router) where layer = ?", [layer])
                }
                assert [row[4] for row in rows] == [place >= capacity for _, place in theirs]
                np.testing.assert_allclose([row[5] for row in rows], golden[f"L{layer}/combine_weights"].ravel(), **close)
                continue
            dispatch, combine = (golden[f"L{layer}/{name}_weights"] for name in ("dispatch", "combine"))
            ours = np.zeros((2, dispatch.shape[0] * dispatch.shape[1], *dispatch.shape[2:]))
            for token, _, expert, place, dropped, weight, share in rows:
                if not dropped:
                    ours[:, token, expert, place] = 1 if share is None else share, weight
            if dispatch.dtype == bool:
                assert np.array_equal(ours[0].reshape(dispatch.shape), dispatch)
            np.testing.assert_allclose(ours[0].reshape(dispatch.shape), dispatch, **close)
            np.testing.assert_allclose(ours[1].reshape(combine.shape), combine, **close)


@pytest.mark.slow
def test_vmoe_specimen(folder: Path) -> None:
    """The shipped V-MoE on shipped images: expert, weight, place and drop as its own routings say."""
    loaded, outputs = load("vmoe"), []
    hook = loaded.model.register_forward_hook(lambda _, __, out: outputs.append(out.routings))
    trace(loaded, read("fashion-mnist", limit=24), folder / "vmoe.duckdb", batch_size=8)
    hook.remove()
    with moescope.open(folder / "vmoe.duckdb") as store:
        for layer, name in store.rows("select layer, name from routers order by layer"):
            theirs = [o[layer] for o in outputs[-3:]]
            stored = store.rows(ROUTED.format("0"), [name])
            for column, field in ((3, "indices"), (5, "dropped"), (6, "slots"), (4, "weights")):
                own = torch.cat([getattr(r, field).flatten() for r in theirs]).tolist()
                assert [row[column] for row in stored] == own


@pytest.mark.slow
def test_gold_labels_land_on_their_subwords(tmp_path: Path) -> None:
    """Every labelled token's text is inside its word, and every letter of every word is in a token of that word."""
    lines = ["# newdoc id = d", "# sent_id = 1", "# text = Unbelievably, she didn't."]
    words = [
        "Unbelievably ADV SpaceAfter=No",
        ", PUNCT _",
        "she PRON _",
        "did AUX SpaceAfter=No",
        "n't PART SpaceAfter=No",
        ". PUNCT _",
    ]
    for number, word in enumerate(words, 1):
        form, upos, misc = word.split()
        lines.append("\t".join([str(number), form, form, upos, "_", "_", "0", "dep", "_", misc]))
    data = tmp_path / "gold.conllu"
    data.write_text("\n".join(lines) + "\n\n")
    trace("mixtral", data, tmp_path / "run.duckdb")
    with moescope.open(tmp_path / "run.duckdb") as store:
        rows = store.rows("""select t.word, v.text, l.label from tokens t join vocab v using (vocab_id)
            left join token_labels l on l.token = t.token and l.kind = 'upos' order by t.position""")
    spelled: dict[int, str] = {}
    for word, text, label in rows:
        if word is not None:
            form, upos, _ = words[word].split()
            assert text.strip() in form
            assert label == upos
            spelled[word] = spelled.get(word, "") + text.strip()
    assert spelled == {n: word.split()[0] for n, word in enumerate(words)}
