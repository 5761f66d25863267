"""What all models share: configuration, data, training, evaluation, inference, weights, jobs."""
