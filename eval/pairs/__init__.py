"""Minimal pairs: two texts of which a good ranking prefers one, made from facts and from a corpus."""
