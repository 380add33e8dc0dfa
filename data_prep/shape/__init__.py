"""Shaping: a film and its masks -> one square sample, and the way back."""
