"""The data sets that come with moescope, by name."""

from pathlib import Path

PACKAGE = Path(__file__).parents[2]


def home() -> Path | None:
    """`moescope/_datasets` in an installed wheel, `datasets/` beside the package in a checkout.

    A checkout is known by its pyproject.toml: in site-packages, `datasets` is Hugging Face's package.
    """
    if (PACKAGE / "_datasets").is_dir():
        return PACKAGE / "_datasets"
    checkout = PACKAGE.parent
    return checkout / "datasets" if (checkout / "pyproject.toml").is_file() else None


def shipped() -> dict[str, Path]:
    """Folders of shipped data by name."""
    folder = home()
    if folder is None or not folder.is_dir():
        return {}
    return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] not in "._"}
