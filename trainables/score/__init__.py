"""Scores: what a prediction is worth, image by image, and how sure that is. numpy, pandas and OpenCV, without torch."""
