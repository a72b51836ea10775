"""Files: the user's paths, locks, what is on the disk, and what commands leave behind."""
