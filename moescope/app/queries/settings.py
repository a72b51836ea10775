"""DuckDB's settings for a connection that serves visitors."""

import os


def settings(memory: str) -> dict[str, str]:
    """So much memory, e.g. "900 MB", no disk, and not more threads than a page can use."""
    threads = str(min(os.cpu_count() or 1, 4))
    return {"memory_limit": memory, "temp_directory": "", "enable_progress_bar": "false", "threads": threads}
