"""One trace by many processes: each makes stretches of it, one gives them their places."""
