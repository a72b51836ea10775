"""What is in files before it is rows: bytes, lines, cells, values, sentences; and which files a pattern means."""
