"""Pictures, sound and video beside texts: a model's own processor, what it is asked, and where in its media tokens lie."""
