"""Figures on paper: what a study shows, as PNG and SVG, safe for colour-blind readers and in grey."""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("figures need matplotlib: pip install 'mammosearch[figures]'") from error
