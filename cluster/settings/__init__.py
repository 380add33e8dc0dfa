"""Settings files: YAML with its lines, and mistakes that name their place."""
