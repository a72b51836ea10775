"""Plain text (UTF-8): each block of non-empty lines is an example; empty lines separate blocks.

Of a single file each block is a document of its own; inside a folder the file is the document.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ._reading.options import Options
from ._reading.raw.byte_streams import lines, texts
from ._reading.types import Example

SUFFIXES = frozenset({".txt", ".text", ".md", ".rst", ".log"})
TAKES: frozenset[str] = frozenset()
RANK = 1  # any file that no other format claims


def accepts(path: Path) -> bool:
    """Any file."""
    return path.is_file()


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """Blocks in order; line breaks and indentation inside a block are kept."""
    source = options.name(path)
    row = empty = 0
    for filled, group in groupby(texts(lines(path, source, options)), key=lambda line: bool(line.strip())):
        if filled:
            yield Example(source, row, options.source or f"{source}:{row}", "\n".join(group))
            row += 1
        else:
            empty += sum(1 for _ in group)
    options.report.skip(source, "empty lines", empty - max(row - 1, 0))  # one between blocks is no loss
