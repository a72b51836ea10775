"""`python -m benchmarks.gpu`: on a machine with an NVIDIA GPU, is the capture right, and what does it cost? In under 8 minutes.

Every section is a process of its own with so many seconds, so that none loses another: a crash, a hang or a poisoned CUDA
context ends with its section. One JSON, one table at the end. `--rehearse` (and by itself where there is no CUDA): the same
code with tiny sizes on the CPU. `python -m benchmarks.gpu_pack` gathers what a machine without a network needs.
"""
