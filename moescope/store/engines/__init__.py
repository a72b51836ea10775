"""Questions to a store asked of many processes: the same DuckDB SQL over ranges of tokens, and what they give added up."""
