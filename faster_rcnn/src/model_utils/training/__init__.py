"""Steps, epochs, checkpoints and logs of a training run on one or several devices."""
