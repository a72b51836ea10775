"""Labels: what a cell says, which columns label a row or parts of it, and which tokens these parts are."""
