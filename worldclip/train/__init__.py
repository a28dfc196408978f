"""Training: loss, optimiser, checkpoints and the only loop."""
