"""Layers and operators that the networks share."""
