"""Readers and writers of weights."""
