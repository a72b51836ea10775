"""How much memory there is for one thing."""

import os
import resource
from functools import cache
from pathlib import Path


@cache
def room() -> int:
    """Bytes that one input or query may fill: half of what this process may have (machine, container, ulimit)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [n for n in resource.getrlimit(resource.RLIMIT_AS) if n != resource.RLIM_INFINITY]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # another system, or no limit
            continue
    return min(limits) // 2
