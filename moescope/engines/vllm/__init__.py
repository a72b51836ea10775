"""moescope inside vLLM: `plugin.py` is its entry point, `attach.py` binds a worker, `runners.py` reads what a model runner
says, `facts.py` what a configuration says."""
