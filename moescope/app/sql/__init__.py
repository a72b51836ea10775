"""Visitors' own SQL, in processes of their own."""
