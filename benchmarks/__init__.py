"""Scripts behind every figure: what tracing costs, how answers scale, what other tools do with the same model."""
