"""Faster R-CNN on MindSpore."""
