"""Weights that were fetched by halves: shards without their index, what a download has begun, pointers of git-lfs."""

import re
from pathlib import Path

from ..errors import ModelError

_POINTER = b"version https://git-lfs"


def no_pointer(path: Path) -> None:
    """ModelError for a file that only says where git-lfs has the real one."""
    if _pointer(path):
        raise ModelError(f"{path} only says where git-lfs has the file; fetch what is in it: git lfs pull")


def _pointer(path: Path) -> bool:
    """Whether a file only says where git-lfs has the real one."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def all_shards(folder: Path, files: list[Path]) -> None:
    """ModelError where files are numbered shards and there is no index, or nothing but what a download has begun."""
    numbered = [match for file in files if (match := re.search(r"-(\d{5})-of-(\d{5})$", file.stem))]
    if numbered:
        raise ModelError(
            f"{folder} has {len(numbered)} of {int(numbered[0][2])} files of its weights and no index of them "
            f"(model.safetensors.index.json){cut(folder)}"
        )
    if not files and (begun := _begun(folder)):
        raise ModelError(f"{folder} has no weights, only what a download has begun ({begun[0].name}); fetch it again")


def _begun(folder: Path) -> list[Path]:
    """Files that a download left unfinished, in the folder or where the hub's client keeps them beside it."""
    kept = folder / ".cache" / "huggingface" / "download"
    return sorted([*folder.glob("*.incomplete"), *(kept.rglob("*.incomplete") if kept.is_dir() else ())])


def cut(folder: Path) -> str:
    """What to do about files that are missing."""
    begun = _begun(folder)
    return f"; a download was cut off here ({begun[0].name}): fetch it again" if begun else "; fetch it again"
