"""Phantoms: mammograms that the project makes itself."""
