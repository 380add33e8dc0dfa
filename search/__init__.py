"""Many trials: a space, a sampler, a pruner, and the full training of the winners."""
