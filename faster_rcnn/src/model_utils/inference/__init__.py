"""Networks out of files, and what is detected with them."""
