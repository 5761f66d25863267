"""Steps, epochs, checkpoints and logs of a training run, on one device or several."""
