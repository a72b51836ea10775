"""Make the notebooks of docs/notebooks from their scripts: python docs/make_notebook.py [NAME ...]

A script has cells behind `# %%` and `# %% [markdown]`. Each is run in a kernel, in a folder where its stores are made once;
pictures are kept as they stand still, so that they are seen where no script runs.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent / "notebooks"
STILL = "from moescope import show\n\nshow.live(False)"


def cells(script: Path) -> list[tuple[str, str]]:
    """("code" or "markdown", its text) of every cell."""
    found = []
    for piece in script.read_text(encoding="utf-8").split("# %%")[1:]:
        head, _, body = piece.partition("\n")
        words = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
        found.append(("markdown", words) if "[markdown]" in head else ("code", body.strip()))
    return found


def book(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, not run."""
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    made = [make[kind](text) for kind, text in cells(script)]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=about)


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in this folder, its outputs in it."""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STILL))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.cells.pop(0)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output.execution_count = None
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.name == "stdout"]


def main(names: list[str]) -> None:
    """Build, run, save."""
    with tempfile.TemporaryDirectory() as folder:
        for script in sorted(HERE.glob("*.py")):
            if not names or script.stem in names:
                made = book(script)
                run(made, Path(folder))
                nbformat.write(made, script.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
