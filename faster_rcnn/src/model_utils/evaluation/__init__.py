"""Evaluation: run a network over a data set, collect its detections and score them."""
