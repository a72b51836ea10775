"""Does a test notice? Small wrong changes (mutants) by rule, one at a time, in a copy, against the tests that run them.

    make mutants                                   every subject of subjects.toml, a sample of each module
    python -m benchmarks.mutants --only storing --most 20 --seed 3
    python -m benchmarks.mutants --file sequences.py --most 0      (0: all of them)

Why not mutmut: 3.8 knows functions only (no module-level SQL, no .sql files, no decorated functions: the compiled counters),
and puts a frame of its own around each, while the tracer reads the Python stack. cosmic-ray runs one whole command per mutant.
"""
