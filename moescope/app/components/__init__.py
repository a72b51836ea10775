"""What a browser draws: each component with its script and style."""
