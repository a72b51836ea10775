"""What loading and tracing a model of real size take in memory, and whether they hold under a limit below its size."""
