"""Who has a store open for writing: read from the system's list of locks, since opening the file would let go of our own."""

import os
from pathlib import Path

LOCKS = Path("/proc/locks")


def held(store: Path) -> str:
    """'here', 'elsewhere', 'free', or 'unknown' where the system does not say."""
    try:
        number = store.stat().st_ino
        entries = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return "unknown"
    # 1: POSIX  ADVISORY  WRITE 20845 fe:00:2196048 0 EOF; of one who waits "1: -> POSIX …"
    writers = {e[4] for e in entries if len(e) == 8 and e[3] == "WRITE" and e[5].rpartition(":")[2] == str(number)}
    if not writers:
        return "free"
    return "here" if str(os.getpid()) in writers else "elsewhere"
