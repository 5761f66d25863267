"""Conversion of weights of other frameworks: names, and the keys that the weights need."""
