"""One run that several processes or machines write, and a run on its way to another store."""
