"""Runtimes: a model's file -> one function from images to probabilities, by torch, ONNX Runtime or OpenVINO."""
