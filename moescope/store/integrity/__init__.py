"""Is a store sound, and bit for bit what was written?"""
