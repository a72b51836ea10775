"""An expert: cards of a layer, its tokens and company, the patches that it takes."""
