"""Ways in which a layer shows its decision (what it is given, returns, computes in between), and how another is put there."""
