"""RefineDet: network, data, training, evaluation, inference."""
