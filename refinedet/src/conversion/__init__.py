"""Weights of other people: their names, and the keys that go with them."""
