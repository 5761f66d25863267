"""Data pipeline: from annotated images to batches."""
