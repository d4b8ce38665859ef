"""Measurements of speed, size and compression, each with its report; quality is measured in `experiments`."""
