"""Exporting: one network in other forms, measured on this machine, and the one that fits its limits."""
