"""V-MoE on disk: the authors' checkpoints without JAX, flax parameters, and a folder of ours."""
