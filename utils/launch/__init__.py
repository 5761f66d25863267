"""msrun, supervised: see run.py."""
