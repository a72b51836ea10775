"""python -m moescope.app.still STORE PAGE QUERY: the page as HTML on standard output, or a sentence on standard error."""

import logging
import os
import sys
from urllib.parse import parse_qsl


def main(store: str, page: str, query: str) -> int:
    """Draw and write it; gives the exit code."""
    os.environ["MOESCOPE_STORE"] = store
    logging.disable(logging.WARNING)  # Streamlit warns that nobody looks
    from moescope.app.still.drawn import drawn
    from moescope.errors import MoescopeError

    try:
        text = drawn(page, dict(parse_qsl(query)))
    except MoescopeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    logging.captureWarnings(True)
    os._exit(main(*sys.argv[1:4]))  # DuckDB's binding complains of what an exit finds open
