"""Where a model goes: what was asked for, what it takes, maps over devices, loading without a second copy."""
