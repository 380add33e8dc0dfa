"""Trackers: what the trial folders hold, sent to where people already look. Knows neither Ray nor torch."""
