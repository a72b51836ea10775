"""What every format of data shares: examples, rows, files and bounds."""
