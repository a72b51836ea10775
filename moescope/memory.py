"""How much memory there is for one thing."""

import os
from functools import cache
from pathlib import Path
from typing import Any

try:
    import resource as _resource
except ImportError:  # Windows
    _resource = None  # type: ignore[assignment]
resource: Any = _resource
_UNKNOWN = 8 << 30  # bytes that a machine has which does not say


@cache
def room() -> int:
    """Bytes that one input or query may fill: half of what this process may have (machine, container, ulimit)."""
    if resource is None:
        return _UNKNOWN // 2
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [n for n in resource.getrlimit(resource.RLIMIT_AS) if n != resource.RLIM_INFINITY]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # another system, or no limit
            continue
    return min(limits) // 2
