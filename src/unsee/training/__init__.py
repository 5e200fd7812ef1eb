"""Training loop, batch schedule, checks, checkpoints, trainable weights."""
