"""Measurements of this project beside the ways that PyTorch's tutorials teach; `python -m benchmarks`."""
