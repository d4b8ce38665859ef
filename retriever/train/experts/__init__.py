"""Experts: a dense trunk carved into them and distilled, those of the vocabulary, routers decided from the start."""
