"""Pictures, sound and video beside texts: which cells hold them, what conversations show, and how they are decoded."""
