"""The demo: draws a data set, trains a small detector on it, scores it and shows the result."""
