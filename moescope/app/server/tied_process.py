"""Processes that end with the one that started them, also when that one is killed.

python -P tied_process.py PARENT ARGUMENTS… is `moescope ARGUMENTS…`, ended by SIGTERM when PARENT ends.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie(parent: int, number: signal.Signals) -> None:
    """On Linux the kernel sends `number` to this process when the thread of `parent` that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was asked
        os._exit(1)


if __name__ == "__main__":
    tie(int(sys.argv.pop(1)), signal.SIGTERM)
    from moescope.cli import main

    main()
