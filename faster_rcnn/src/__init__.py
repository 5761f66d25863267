"""Faster R-CNN: the network, its data and what surrounds it."""
