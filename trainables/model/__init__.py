"""The model folder: what a trained network needs to be used alone, without its study and its shards."""
