"""Training data: pairs and what is made of them (hard negatives, scores, pseudo-queries), read as a stream."""
