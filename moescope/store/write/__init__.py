"""Writing a run: columns in memory, shards, the join into the store's file, and changes to it."""
