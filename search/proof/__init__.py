"""Proof: a study told exactly, trained again, killed and compared."""
