"""Training: devices, optimizers, checkpoints, the fit loop, TensorBoard."""
