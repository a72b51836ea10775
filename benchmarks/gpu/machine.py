"""What a machine is: its GPU, driver and versions, asked without starting CUDA."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch", "triton", "transformers", "tokenizers", "safetensors", "huggingface_hub", "accelerate", "duckdb", "numpy",
    "pyarrow", "pandas", "numba", "rich", "click",
)  # fmt: skip


def gpu() -> str:
    """Name, memory and driver, as nvidia-smi has them; "none" where it is not there or fails."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    return "; ".join(said.stdout.split("\n")).strip("; ") if said.returncode == 0 and said.stdout.strip() else "none"


def versions() -> dict[str, str]:
    """Of what takes part; "missing" for what is not there."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def machine() -> dict[str, object]:
    """All of it, for the JSON."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    return {"gpu": gpu(), "system": system, "executable": os.path.basename(sys.executable), "versions": versions()}
