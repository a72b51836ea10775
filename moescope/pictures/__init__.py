"""What people look at: pictures that a browser draws, as data; the scripts that draw them; pages and files of them."""
