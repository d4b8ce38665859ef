"""Vectors of chunks: how they are stored, row by row, and how the nearest are found."""
