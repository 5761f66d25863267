"""Data, training, evaluation and the network of this model."""
