"""How much memory there is: for one thing, and now."""

import os
from collections.abc import Iterator
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


def free() -> int:
    """Bytes of memory that this process may still take: of the machine, of its container, by ulimit."""
    found = [_meminfo(), *_of_containers(), *_of_ulimit()]
    return max(0, min(found))


def _meminfo() -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return _UNKNOWN


def _of_ulimit() -> Iterator[int]:
    """What is left of a limit on addresses, and of one on data."""
    if resource is None:
        return
    used = dict(line.split(":", 1) for line in _lines("/proc/self/status") if line.startswith(("VmSize:", "VmData:")))
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and name in used:
            yield int(most) - (int(used[name].split()[0]) << 10)


def _of_containers() -> Iterator[int]:
    """What is left of the limits of the group of processes that this one is in, and of those around it."""
    for line in _lines("/proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            root = Path("/sys/fs/cgroup") / kinds
            most, used = ("memory.max", "memory.current") if not kinds else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            group = root / path.strip().lstrip("/")
            for folder in [group, *group.parents]:
                yield from _left(folder / most, folder / used, folder / "memory.stat")
                if folder == root:
                    break


def _left(limit: Path, used: Path, stat: Path) -> Iterator[int]:
    """A limit less what is in use, pages of files left out that can be dropped."""
    try:
        most, taken = int(limit.read_text()), int(used.read_text())
    except (OSError, ValueError):  # no such group here, or no limit
        return
    cached = [int(line.split()[1]) for line in _lines(stat) if line.split()[0] in ("inactive_file", "active_file")]
    yield most - max(0, taken - sum(cached))


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # another system
        return []
