"""Models: loading what a user names, V-MoE, the shipped specimens, tiny models of every family."""
