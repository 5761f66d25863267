"""Whole detectors of other frameworks: their names of the weights, their configuration, and the way back."""
