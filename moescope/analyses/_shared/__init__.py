"""What analyses share: the run and its documents, its decisions and tokens as arrays, answers, charts and the report."""
