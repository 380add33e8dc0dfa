"""The step: batches, augmentation, loss, metrics, optimiser, precision, checkpoints."""
