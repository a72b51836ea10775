"""Reference arrays of V-MoE as the files keep them: an array that several files have lies in one of them."""

import sys
from pathlib import Path

import numpy as np

HOME = Path(__file__).parents[1] / "goldens" / "vmoe"
_ELSEWHERE = "elsewhere/"  # before the key of an array that lies in another file, whose name is the value


def golden(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by their keys."""
    found = {}
    with np.load(path) as file:
        for key in file.files:
            own = key.removeprefix(_ELSEWHERE)
            if own == key:
                found[own] = file[key]
            else:
                with np.load(path.with_name(str(file[key]))) as other:
                    found[own] = other[own]
    return found


def keep_once(folder: Path) -> None:
    """Write the files of a folder anew, each array under one key only where it is met first."""
    first: dict[tuple[object, ...], str] = {}
    for path in sorted(folder.glob("*.npz")):
        arrays = golden(path)
        places = {
            key: first.setdefault((key, value.shape, value.dtype.str, value.tobytes()), path.name)
            for key, value in arrays.items()
        }
        kept = {key: value for key, value in arrays.items() if places[key] == path.name or value.nbytes < 400}
        pointers = {_ELSEWHERE + key: np.array(places[key]) for key in arrays if key not in kept}
        np.savez_compressed(path, **(kept | pointers))  # type: ignore[arg-type]


if __name__ == "__main__":
    keep_once(Path(sys.argv[1]) if len(sys.argv) > 1 else HOME)
