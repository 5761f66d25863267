"""Detections of a data set, and the scores that they get."""
