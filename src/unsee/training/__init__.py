"""The training loop, its schedule, guards and trainable weights."""
