"""Configuration and the device that a run uses."""
