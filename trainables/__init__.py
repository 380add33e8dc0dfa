"""One trial: what a configuration is, how it is trained, and what is written down."""
