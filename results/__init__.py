"""What came of a study, as pandas tables. Imports neither Ray nor torch."""
