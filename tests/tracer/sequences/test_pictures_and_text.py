"""Streams that hold a picture's patches and more: text around them, padding, several kinds of blocks, sizes that are told.

Where a patch lies is found apart from moescope: a mark is put on one patch's latents, and the row that changes in what the
model embeds is that patch's.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import System, cogvideox, hidream, nucleus
from torch import Tensor, nn

import moescope

Cell = tuple[int | None, int, int]


def traced(system: System, path: Path, steps: int = 1, denoising: bool = True) -> Any:
    """A store of so many forwards, which denoise the same pictures or not."""
    with moescope.Tracer(system.model, path, inputs=system.inputs) as tracer:
        for _ in range(steps):
            if denoising and steps > 1:
                with tracer.denoising():
                    for _ in range(steps):
                        system()
                break
            system()
    return moescope.open(path)


def resized(system: System, *shape: int) -> System:
    system.inputs["hidden_states"] = torch.randn(*shape)
    return system


def changed_rows(system: System, embed: str, mark: Any, sequence: int) -> list[int]:
    """Which rows of a sequence change in what a module gives, where `mark(latents)` changes the latents."""
    seen: list[Tensor] = []
    handle = system.model.get_submodule(embed).register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    plain = system.inputs["hidden_states"]
    try:
        system()
        system.inputs["hidden_states"] = mark(plain.clone())
        system()
    finally:
        handle.remove()
        system.inputs["hidden_states"] = plain
    differ = (seen[0] != seen[1]).flatten(2).any(-1)
    assert differ.any(1).nonzero().flatten().tolist() == [sequence]
    return differ[sequence].nonzero().flatten().tolist()


def found_cells(store: Any, router: str, sequence: int) -> list[tuple[Any, ...]]:
    """(unit, frame, y, x) of a router's tokens of a sequence, by position."""
    rows = store.rows(
        "select distinct t.position, t.unit, l.label, y, x, t.special from decisions join tokens t using (token) "
        "join routers r using (router) left join token_labels l on l.token = t.token and l.kind = 'frame' "
        "where r.name like ? and t.sequence = ? order by 1",
        [f"{router}%", sequence],
    )
    assert [row[0] for row in rows] == list(range(len(rows)))
    assert not any(row[5] for row in rows)
    return [(unit, None if frame is None else int(frame), y, x) for _, unit, frame, y, x, _ in rows]


def grid(frames: int | None, down: int, across: int) -> list[tuple[Any, ...]]:
    one = [(y, x) for y in range(down) for x in range(across)]
    return [("patch", None if frames is None else f, y, x) for f in range(frames or 1) for y, x in one]


TEXT = ("text", None, None, None)
PICTURES = {"square": (4, 4), "lying": (2, 6), "standing": (7, 2)}


@pytest.mark.parametrize("denoising", [True, False])
@pytest.mark.parametrize("form", PICTURES)
def test_a_patch_is_one_token_in_every_kind_of_block(form: str, denoising: bool, tmp_path: Path) -> None:
    """HiDream: patches in double-stream blocks, patches and nine text tokens in single-stream ones; padding is left out.

    Every block's decision of a row stands at the token of that row: recounted from what the gates returned.
    """
    down, across = PICTURES[form]
    system = resized(hidream(), 2, 4, 2 * down, 2 * across)
    decided: dict[str, list[Tensor]] = {}
    handles = [
        m.register_forward_hook(lambda _, __, out, name=name: decided.setdefault(name, []).append(out[0]))
        for name, m in system.model.named_modules() if name.endswith("ff_i.gate")
    ]  # fmt: skip
    store = traced(system, tmp_path / "run.duckdb", 2, denoising)
    for handle in handles:
        handle.remove()
    patches, texts = down * across, 9
    slots = patches if down == across else 16  # max_seq: padding up to it
    kept = [*range(patches), *range(slots, slots + texts)]
    for name, outputs in decided.items():
        for forward, experts in enumerate(outputs[-2:]):
            rows = experts.view(2, -1, 2)
            rows = rows[:, kept] if rows.shape[1] > slots else rows[:, :patches]
            stored = store.rows(
                "select list(expert order by expert) from assignments join tokens t using (token) "
                "join routers r using (router) where r.name = ? and forward = ? group by t.sequence, t.position "
                "order by t.sequence, t.position",
                [name, forward],
            )
            assert [row[0] for row in stored] == rows.flatten(0, 1).sort(-1).values.tolist()
    sequences = 2 if denoising else 4
    assert store.rows("select sequence, tokens, height, width from sequences order by 1") == [
        (s, patches + texts, down, across) for s in range(sequences)
    ]
    assert store.rows("select count(*) from tokens") == [(sequences * (patches + texts),)]
    assert store.rows("select tokens from forwards") == [(2 * (patches + texts),)] * 2
    for s in range(sequences):
        assert found_cells(store, "double", s) == grid(None, down, across)
        assert found_cells(store, "single", s) == grid(None, down, across) + [TEXT] * texts
    blocks = store.rows(
        "select distinct t.unit, count(distinct router), count(distinct forward) from decisions join tokens t using (token) "
        "group by t.unit, token order by 1"
    )
    assert blocks == [("patch", 2, 2 if denoising else 1), ("text", 1, 2 if denoising else 1)]
    for s, (y, x) in ((0, (down - 1, 0)), (1, (1, across - 1))):
        (row,) = changed_rows(system, "x_embedder", marked(s, None, y, x, (1, 2, 2)), s)
        assert found_cells(store, "double", s)[row] == ("patch", None, y, x)


def marked(sequence: int, frame: int | None, y: int, x: int, size: tuple[int, int, int]) -> Any:
    """A change of the latents (B, C, H, W), or (B, F, C, H, W), under one patch."""

    def mark(latents: Tensor) -> Tensor:
        one = latents[sequence] if frame is None else latents[sequence, frame * size[0] : (frame + 1) * size[0]]
        one[..., y * size[1] : (y + 1) * size[1], x * size[2] : (x + 1) * size[2]] += 1
        return latents

    return mark


def test_pictures_that_come_packed(tmp_path: Path) -> None:
    """HiDream with patches that are cut already, of two sizes, padded, and their sizes beside them."""
    system = hidream()
    mask = torch.zeros(2, 16)
    mask[0, :8], mask[1, :12] = 1, 1
    system.inputs |= {
        "hidden_states": torch.randn(2, 16, 16), "hidden_states_masks": mask, "img_ids": torch.zeros(2, 16, 3),
        "img_sizes": torch.tensor([[2, 4], [4, 3]]),
    }  # fmt: skip
    system.model.unpatchify = lambda hidden, *_: hidden  # its own cannot put pictures of two sizes into one tensor
    for sizes in (system.inputs["img_sizes"], system.inputs["img_sizes"].tolist()):
        system.inputs["img_sizes"] = sizes
        store = traced(system, tmp_path / f"{type(sizes).__name__}.duckdb")
        for s, shape in enumerate([(2, 4), (4, 3)]):
            assert found_cells(store, "double", s) == grid(None, *shape)
            assert found_cells(store, "single", s) == grid(None, *shape) + [TEXT] * 9
        assert store.rows("select tokens, height, width from sequences order by sequence") == [(17, 2, 4), (21, 4, 3)]


VIDEOS = {
    "two frames": ({}, (2, 2, 4, 4, 4), (1, 2, 2)),
    "lying, as many frames as channels": ({"sample_width": 8, "sample_frames": 13}, (2, 4, 4, 4, 8), (1, 2, 2)),
    "patches over frames": ({"patch_size_t": 2, "use_rotary_positional_embeddings": True}, (2, 6, 4, 4, 8), (2, 2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("form", VIDEOS)
def test_a_video_has_frames(form: str, tmp_path: Path) -> None:
    """CogVideoX: five text tokens, then patches frame by frame."""
    settings, shape, size = VIDEOS[form]
    system = resized(cogvideox(**settings), *shape)
    frames, down, across = shape[1] // size[0], shape[3] // size[1], shape[4] // size[2]
    if "patch_size_t" in settings:
        count = frames * down * across
        system.inputs["image_rotary_emb"] = (torch.ones(count, 16), torch.zeros(count, 16))
    store = traced(system, tmp_path / "run.duckdb", 2)
    for s in range(2):
        assert found_cells(store, "transformer", s) == [TEXT] * 5 + grid(frames, down, across)
    assert store.rows("select tokens, height, width from sequences") == [(5 + frames * down * across, down, across)] * 2
    assert store.rows("select expert_name, unit, count(distinct token) from assignments join tokens using (token) "
                      "join experts using (router, expert) group by all order by 1") == [
        ("text", "text", 10), ("video", "patch", 2 * frames * down * across),
    ]  # fmt: skip
    for s, (frame, y, x) in ((0, (frames - 1, 0, across - 1)), (1, (0, down - 1, 0))):
        (row,) = changed_rows(system, "patch_embed", marked(s, frame, y, x, size), s)
        assert found_cells(store, "transformer", s)[row] == ("patch", frame, y, x)


SHAPES: dict[str, tuple[Any, list[list[tuple[Any, ...]]]]] = {
    "one a sequence": ([(1, 4, 4)] * 2, [grid(1, 4, 4)] * 2),
    "one for all": ((1, 2, 8), [grid(1, 2, 8)] * 2),
    "frames": ([(2, 4, 2)] * 2, [grid(2, 4, 2)] * 2),
    "several pictures a sequence": (
        [[(1, 2, 4), (1, 4, 2)]] * 2, [grid(1, 2, 4) + [("patch", 1, y, x) for _, _, y, x in grid(1, 4, 2)]] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", SHAPES)
def test_sizes_that_are_told(form: str, tmp_path: Path) -> None:
    """NucleusMoE: patches come packed, beside the pictures' shapes."""
    system = nucleus()
    system.inputs["img_shapes"], expected = SHAPES[form]
    store = traced(system, tmp_path / "run.duckdb", 3)
    assert [found_cells(store, "transformer", s) for s in range(2)] == expected
    assert store.rows("select count(*) from tokens") == [(32,)]
    times = store.rows("select forward, sequence from conditions where kind = 'timestep' order by 1, 2")
    assert times == [(f, s) for f in range(3) for s in range(2)]


def test_the_order_of_packed_patches(tmp_path: Path) -> None:
    """A patch's row is where diffusers' own pipeline packs it."""
    from diffusers import NucleusMoEImagePipeline

    system = nucleus()
    system.inputs["img_shapes"] = [(1, 2, 8)] * 2
    latents = torch.zeros(2, 4, 4, 16)
    latents[1, :, 2:4, 10:12] = 1
    packed = NucleusMoEImagePipeline._pack_latents(latents, 2, 4, 4, 16, 2)
    store = traced(system, tmp_path / "run.duckdb")
    ((sequence, row),) = packed.any(-1).nonzero().tolist()
    assert (sequence, found_cells(store, "transformer", sequence)[row]) == (1, ("patch", 0, 1, 5))


class Denoiser(nn.Module):
    """Rows through one mixture of DiT-MoE's kind; `rows`: what a subclass makes of latents."""

    def __init__(self, size: int) -> None:
        super().__init__()
        from diffusion_systems import LitGPTLike, seeded

        self.embed, self.moe = nn.Linear(size, 8), seeded(LitGPTLike)

    def forward(self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        rows = self.embed(self.rows(hidden_states))
        rows = rows if encoder_hidden_states is None else torch.cat([rows, encoder_hidden_states], 1)
        return self.moe(rows + timestep.view(-1, 1, 1) / 1000)

    def rows(self, latents: Tensor) -> Tensor:
        return latents


class Strips(Denoiser):
    """Latents (B, C, H, W) in patches of one by four, of which nothing of the model says the size."""

    def rows(self, latents: Tensor) -> Tensor:
        return latents.unflatten(-1, (-1, 4)).permute(0, 2, 3, 1, 4).flatten(1, 2).flatten(2)


class Cut(Denoiser):
    """The same by a convolution, whose kernel says it."""

    def __init__(self) -> None:
        super().__init__(6)
        self.cut = nn.Conv2d(4, 6, (1, 4), (1, 4))

    def rows(self, latents: Tensor) -> Tensor:
        return self.cut(latents).flatten(2).mT


class Tubes(Denoiser):
    """Videos (B, C, F, H, W) in tubes of two frames, by a convolution."""

    def __init__(self) -> None:
        super().__init__(6)
        self.cut = nn.Conv3d(4, 6, (2, 1, 4), (2, 1, 4))

    def rows(self, latents: Tensor) -> Tensor:
        return self.cut(latents).flatten(2).mT


class Sized(Strips):
    """The same beside a configuration with a patch size that is not the one."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.config = type("Config", (), {"patch_size": 4})()


TIMES = torch.tensor([900.0, 100.0])
KNOWN = {
    "cut": (Cut, (), {"hidden_states": torch.randn(2, 4, 3, 8), "timestep": TIMES}, grid(None, 3, 2)),
    "tubes": (Tubes, (), {"hidden_states": torch.randn(2, 4, 6, 3, 8), "timestep": TIMES}, grid(3, 3, 2)),
}  # fmt: skip
NOT_KNOWN: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], int]] = {
    "no patch size": (Strips, (16,), {"hidden_states": torch.randn(2, 4, 3, 8), "timestep": TIMES}, 6),
    "a square number of rows": (Strips, (16,), {"hidden_states": torch.randn(2, 4, 2, 8), "timestep": TIMES}, 4),
    "another patch size": (Sized, (16,), {"hidden_states": torch.randn(2, 4, 8, 8), "timestep": TIMES}, 16),
    "packed": (Denoiser, (5,), {"hidden_states": torch.randn(2, 12, 5), "timestep": TIMES}, 12),
    "text among them": (
        Cut, (), {"hidden_states": torch.randn(2, 4, 4, 16), "timestep": TIMES,
                  "encoder_hidden_states": torch.randn(2, 3, 8)}, 19,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", [*KNOWN, *NOT_KNOWN])
def test_what_is_not_known_is_said(form: str, tmp_path: Path) -> None:
    """Null, and one sentence: a place is never guessed from a count."""
    make, args, inputs, expected = {**KNOWN, **NOT_KNOWN}[form]
    system = System(make(*args).eval(), inputs)
    store = traced(system, tmp_path / "run.duckdb")
    cells = expected if form in KNOWN else [("row", None, None, None)] * expected
    assert [found_cells(store, "moe", s) for s in range(2)] == [cells] * 2
    said = [w for w in json.loads(store.rows("select warnings from runs")[0][0]) if "cannot be known" in w]
    name = make.__name__
    assert [w.startswith(f"where the patches of {name} lie cannot be known") for w in said] == [True] * (form in NOT_KNOWN)
