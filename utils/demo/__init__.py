"""The demo: draws a data set of its own, trains a small detector on it, scores it and shows the result."""
