"""Run a program on several devices with msrun, supervised; see run.py."""
