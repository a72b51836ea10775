"""Whether what the analyses say of chance is so: worlds without structure, asked through the public API."""
