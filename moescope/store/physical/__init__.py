"""How decisions lie on the disk: narrow tables, and the encodings that lose nothing."""
