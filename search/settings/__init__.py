"""The settings of a study: sections, space and checks of nas.yaml, and its reference."""
