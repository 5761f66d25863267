"""Rank tables of Ascend machines."""
