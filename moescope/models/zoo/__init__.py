"""Small models of systems that no package here offers, one file each."""
