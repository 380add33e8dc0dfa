"""Finding: a download in any layout -> samples, before any pixel is read."""
