"""Stores are written in a notebook as elsewhere, with ipywidgets and without."""

import importlib.util
import subprocess
import sys

import pytest

KERNEL = """
import sys, types
if {bare}:
    sys.modules["ipywidgets"] = None
shell = types.SimpleNamespace(config={{"IPKernelApp": {{}}}})
ipython = types.ModuleType("IPython")
ipython.get_ipython = lambda: shell
sys.modules["IPython"] = ipython
import duckdb
try:
    duckdb.connect().execute("set enable_progress_bar = false")
    print("set")
except duckdb.Error:
    print("refused")
from moescope.store.write import working_copy
print(len(working_copy.empty()) > 0)
"""


@pytest.mark.parametrize("bare", [True, False], ids=["without ipywidgets", "with ipywidgets"])
def test_a_store_is_made_in_a_notebook(bare: bool) -> None:
    """DuckDB takes a program without a file, in which IPython's shell is a kernel, for a notebook."""
    if not bare and importlib.util.find_spec("ipywidgets") is None:
        pytest.skip("ipywidgets is not installed")
    done = subprocess.run([sys.executable, "-c", KERNEL.format(bare=bare)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]
    assert done.stdout.split()[-1] == "True"
    if bare:
        assert done.stdout.split()[0] == "refused"  # as DuckDB still does: else this test proves nothing
