"""Load networks from files and detect objects with them."""
